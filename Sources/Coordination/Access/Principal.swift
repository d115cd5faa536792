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
