/// Who may use an endpoint.
package enum AccessRule: Hashable, Sendable {
    /// Everybody, without a token.
    case anybody
    /// Staff with this role or more.
    case staff(StaffRole)
    /// Clients, about work of their own.
    case client
    /// Bearers of enrollment tokens.
    case enrollment
    /// Staff, and clients that have had work in the run, or in one that builds on it.
    case modelReader
    /// Staff, and clients; that a client belongs to the population is for the answer to check.
    case populationReader
    /// The client that the path names, and staff with this role or more.
    case clientItself(orStaff: StaffRole)
    /// Everybody about the token that they came with, named `current`; administrators about every token.
    case tokenItself
}

/// What kind of callers an endpoint has, and so what its handler is told about them.
package protocol CallerKind: Sendable {}

/// Callers about whom nothing is known.
package enum Anybody: CallerKind {}
/// Staff alone.
package enum Staff: CallerKind {}
/// Clients alone.
package enum Clients: CallerKind {}
/// Bearers of enrollment tokens alone.
package enum Enrollees: CallerKind {}
/// Bearers of tokens of several kinds.
package enum TokenHolders: CallerKind {}

/// A rule together with the kind of callers that it lets in.
package struct EndpointAccess<Caller: CallerKind>: Sendable {
    package let rule: AccessRule
}

extension EndpointAccess where Caller == Anybody {
    package static var anybody: Self { Self(rule: .anybody) }
}

extension EndpointAccess where Caller == Staff {
    package static var viewer: Self { Self(rule: .staff(.viewer)) }
    package static var `operator`: Self { Self(rule: .staff(.operator)) }
    package static var admin: Self { Self(rule: .staff(.admin)) }
}

extension EndpointAccess where Caller == Clients {
    package static var client: Self { Self(rule: .client) }
}

extension EndpointAccess where Caller == Enrollees {
    package static var enrollment: Self { Self(rule: .enrollment) }
}

extension EndpointAccess where Caller == TokenHolders {
    package static var modelReader: Self { Self(rule: .modelReader) }
    package static var populationReader: Self { Self(rule: .populationReader) }
    package static var tokenItself: Self { Self(rule: .tokenItself) }
    package static func clientItself(orStaff role: StaffRole) -> Self { Self(rule: .clientItself(orStaff: role)) }
}
