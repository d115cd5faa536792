package import WireFormat

/// Who calls.
package enum Principal: Equatable, Sendable {
    /// A person or program with a viewer's, operator's or administrator's token.
    case staff(role: StaffRole, tokenID: String)
    case enrollment(population: String, tokenHash: String)
    case client(id: String)

    /// The role, where the caller operates the server.
    package var staffRole: StaffRole? {
        if case .staff(let role, _) = self { return role }
        return nil
    }

    /// What one caller's requests are counted by.
    package var key: String {
        switch self {
        case .staff(_, let token): "token " + token
        case .enrollment(_, let hash): "enrollment " + hash
        case .client(let id): "client " + id
        }
    }

    /// Everyone of a server without authentication.
    package static let open = Principal.staff(role: .admin, tokenID: "open")
}

extension Principal {
    /// Whom a token speaks for; `nil` for a client that was revoked.
    init?(_ record: TokenRecord, among clients: ClientTable) {
        switch record.role {
        case .enrollment:
            guard let population = record.populationId else { return nil }
            self = .enrollment(population: population, tokenHash: record.hash)
        case .client:
            guard let id = record.clientId, clients[id]?.state != .revoked else { return nil }
            self = .client(id: id)
        case .viewer, .operator, .admin:
            guard let role = record.role.staffRole else { return nil }
            self = .staff(role: role, tokenID: record.id)
        }
    }
}
