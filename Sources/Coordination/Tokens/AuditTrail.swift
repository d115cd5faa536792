package import Foundation
import Synchronization
package import WireFormat

/// One action of an operator, as it stays in the audit log; rows are only ever appended.
package struct AuditRow: Codable, Equatable, Sendable {
    /// Given by the store.
    package var sequence: Int?
    package var at: Date
    /// The id of the token that was used; `open` on a server without authentication.
    package var actor: String
    /// The token's name at that time.
    package var actorName: String?
    package var role: StaffRole
    /// The network address the request came from.
    package var address: String
    /// Method and route, such as `POST /v1/runs/{run}/start`.
    package var action: String
    /// The path that was asked for.
    package var target: String
    /// `done`, or `refused` when nothing was changed; after a row `done` of the same request: when only a part of it was.
    package var outcome: AuditOutcome
    /// The refusal's machine-readable code.
    package var code: String?
    package var requestId: String

    package init(
        at: Date,
        actor: String,
        actorName: String? = nil,
        role: StaffRole,
        address: String,
        action: String,
        target: String,
        outcome: AuditOutcome,
        code: String? = nil,
        requestId: String
    ) {
        self.at = at
        self.actor = actor
        self.actorName = actorName
        self.role = role
        self.address = address
        self.action = action
        self.target = target
        self.outcome = outcome
        self.code = code
        self.requestId = requestId
    }
}

/// What is asked of the audit log.
package struct AuditQuery: Equatable, Sendable {
    /// Rows with a smaller sequence number; `nil` begins with the newest.
    package var before: Int?
    package var limit: Int
    package var actor: String?
    package var action: String?
    package var outcome: AuditOutcome?
    package var since: Date?

    package init(
        before: Int? = nil,
        limit: Int,
        actor: String? = nil,
        action: String? = nil,
        outcome: AuditOutcome? = nil,
        since: Date? = nil
    ) {
        self.before = before
        self.limit = limit
        self.actor = actor
        self.action = action
        self.outcome = outcome
        self.since = since
    }

    /// Whether the row is one that is asked for, the position aside.
    func matches(_ row: AuditRow) -> Bool {
        (actor == nil || row.actor == actor) && (action == nil || row.action == action)
            && (outcome == nil || row.outcome == outcome) && since.map { row.at >= $0 } ?? true
    }
}

/// The request that is being served, for the audit log.
///
/// The coordinator's first transaction for the request takes the row with it, so that an action and its row are durable
/// together or not at all. A request that changed nothing leaves its row with the reason.
package final class AuditTrail: Sendable {
    /// The trail of the request that the present task serves.
    @TaskLocal package static var current: AuditTrail?

    private struct State {
        var actor: (id: String, name: String?, role: StaffRole)?
        var isWritten = false
        var isRefusalWritten = false
    }

    private let state = Mutex(State())
    private let action: String
    private let target: String
    private let address: String
    private let requestID: String

    package init(action: String, target: String, address: String, requestID: String) {
        self.action = action
        self.target = target
        self.address = address
        self.requestID = requestID
    }

    /// Notes who acts, once that is known.
    package func identify(tokenID: String, name: String?, role: StaffRole) {
        state.withLock { $0.actor = (tokenID, name, role) }
    }

    /// The id of the token that acts, once that is known.
    package var actorID: String? { state.withLock { $0.actor?.id } }

    /// Whether a transaction has taken the action's row.
    package var isWritten: Bool { state.withLock { $0.isWritten } }

    /// The row of the action, the first time; `nil` afterwards, and for callers who operate nothing.
    ///
    /// A request that fails after its first transaction has a second row, which says that it was refused.
    package func take(at time: Date, refusal code: String?) -> AuditRow? {
        state.withLock { state in
            guard let actor = state.actor, code == nil ? !state.isWritten : !state.isRefusalWritten else { return nil }
            state.isWritten = true
            if code != nil { state.isRefusalWritten = true }
            return AuditRow(
                at: time,
                actor: actor.id,
                actorName: actor.name,
                role: actor.role,
                address: address,
                action: action,
                target: target,
                outcome: code == nil ? .done : .refused,
                code: code,
                requestId: requestID
            )
        }
    }

    /// Makes the row available again after its transaction failed.
    package func untake() { state.withLock { $0.isWritten = false } }
}
