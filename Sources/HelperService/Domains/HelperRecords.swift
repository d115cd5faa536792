import Coordination
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
    /// Which file its key was written to, as ``SecretFile/identity(_:)`` tells it: a copy that was put back is another one.
    var keyFile = ""
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

    /// The run's name in the ledger, where all servers of a domain are charged: no name of a run has a `/`.
    var ledgerRun: String { "\(caller.server)/\(run)" }
}

/// Which earlier sums a pseudonym's participations are counted in.
struct ParticipationScope: Hashable, Sendable {
    var caller: ServerCaller
    var run: String
    var purpose: HelperPurpose
}

/// What a domain had been charged with that is not there after a roll-back: it comes back with the domain.
struct LostCharge: Equatable, Sendable {
    var domain: String
    /// As in the ledger.
    var run: String
    var charge: PrivacyCharge
    var count: Int
}

/// The chain of all changes of sessions, by which the second record notices a roll-back also where nothing is charged.
struct SessionChain: Equatable, Sendable {
    /// One change.
    struct Link: Equatable, Sendable {
        var number: Int
        var session: String
        var state: HelperSessionState
        /// Where the chain stands with it.
        var head: String
    }

    /// How many changes there were.
    var number = 0
    var head = PrivacyLedger.emptyHead

    /// Adds a change.
    mutating func append(_ session: SessionRecord) -> Link {
        number += 1
        let words = [
            head, String(number), session.id, session.state.rawValue, session.listHash ?? "", session.sumHash ?? "",
        ]
        head = Secrets.sha256(Array(words.joined(separator: "\n").utf8))
        return Link(number: number, session: session.id, state: session.state, head: head)
    }
}
