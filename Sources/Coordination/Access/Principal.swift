/// What a person or program that operates the server may do; each role may all that the one before it may.
package enum StaffRole: String, Codable, CaseIterable, Comparable, Sendable {
    /// Reads everything but tokens.
    case viewer
    /// Also creates and steers runs, and revokes clients.
    case `operator`
    /// Also populations, budgets, enrollment and other tokens.
    case admin

    package static func < (left: StaffRole, right: StaffRole) -> Bool { left.rank < right.rank }

    private var rank: Int {
        switch self {
        case .viewer: 0
        case .operator: 1
        case .admin: 2
        }
    }
}

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

    /// Everyone of a server without authentication.
    package static let open = Principal.staff(role: .admin, tokenID: "open")
}
