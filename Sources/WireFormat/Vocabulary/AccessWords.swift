/// What a token is for.
public enum TokenRole: String, ClosedWord {
    case viewer
    case `operator`
    case admin
    /// Registers clients.
    case enrollment
    /// Proves one client.
    case client

    /// What its bearer may do; `nil` where it operates nothing.
    package var staffRole: StaffRole? {
        switch self {
        case .viewer: .viewer
        case .operator: .operator
        case .admin: .admin
        case .enrollment, .client: nil
        }
    }
}

/// What a person or program that operates the server may do; each role may all that the one before it may.
public enum StaffRole: String, ClosedWord, Comparable {
    /// Reads everything but tokens.
    case viewer
    /// Also creates and steers runs, and revokes clients.
    case `operator`
    /// Also populations, budgets, enrollment and other tokens.
    case admin

    /// Whether the right one may more.
    public static func < (left: StaffRole, right: StaffRole) -> Bool { left.rank < right.rank }

    private var rank: Int {
        switch self {
        case .viewer: 0
        case .operator: 1
        case .admin: 2
        }
    }

    /// The role of the token itself.
    package var tokenRole: TokenRole {
        switch self {
        case .viewer: .viewer
        case .operator: .operator
        case .admin: .admin
        }
    }
}

/// What became of a request that the audit log has.
package enum AuditOutcome: String, ClosedWord {
    case done, refused
}

/// Where a client stands.
package enum ClientStanding: String, ClosedWord {
    /// It has not checked in yet.
    case registered
    case active
    /// It is out for good.
    case revoked
}
