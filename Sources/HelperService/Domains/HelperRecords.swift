import Foundation
package import WireFormat

/// A domain as it is stored.
struct DomainRecord: Equatable, Sendable {
    /// The population's name here; it is in documents and in the ledger, and does not change.
    var name: String
    var policy: HelperPolicy
    var budget: HelperBudget?
    var createdAt: Date
}

/// A token as it is stored: by its hash.
struct HelperToken: Equatable, Sendable {
    /// What its bearer may do.
    enum Bearer: Hashable, Sendable {
        case staff(StaffRole)
        case server(ServerCaller)
    }

    var hash: String
    var id: String
    var bearer: Bearer
    var createdAt: Date
    var expiresAt: Date?
}

/// A server that asks: its name in one domain, whichever of its tokens it comes with.
package struct ServerCaller: Hashable, Sendable {
    package var domain: String
    package var server: String

    package init(domain: String, server: String) {
        self.domain = domain
        self.server = server
    }
}

/// Who asks a helper.
package enum HelperPrincipal: Equatable, Sendable {
    case staff(StaffRole)
    case server(ServerCaller)
}

/// A session as it is stored.
struct SessionRecord: Equatable, Sendable {
    /// SHA-256 of the document, in hexadecimal.
    var id: String
    var caller: ServerCaller
    var purpose: HelperPurpose
    var run: String
    var round: Int
    var attempt: Int
    var state: HelperSessionState
    var document: [UInt8]
    var grant: [UInt8]
    /// SHA-256 of what was asked for: the same request has the same session.
    var requestHash: String
    var createdAt: Date
    var expiresAt: Date
    /// The event of its charge, as the ledger has it; `nil` without noise.
    var charge: String?
    var listHash: String?
    var sumHash: String?
    /// The name of the sum's file while it is kept.
    var sumFile: String?
    var sumByteCount: Int?
}

/// Which earlier sums a pseudonym's participations are counted in.
struct ParticipationScope: Hashable, Sendable {
    var domain: String
    var run: String
    var purpose: HelperPurpose
}
