/// One action of an operator, as the audit log shows it.
package struct AuditEntry: Codable, Equatable, Sendable {
    package var sequence: Int
    package var at: String
    /// The id of the token that was used; `open` on a server without authentication.
    package var actor: String
    package var actorName: String?
    package var role: StaffRole
    package var address: String
    /// Method and route, such as `POST /v1/runs/{run}/start`.
    package var action: String
    /// The path that was asked for.
    package var target: String
    package var outcome: AuditOutcome
    /// The refusal's machine-readable code.
    package var code: String?
    package var requestId: String

    package init(
        sequence: Int,
        at: String,
        actor: String,
        actorName: String?,
        role: StaffRole,
        address: String,
        action: String,
        target: String,
        outcome: AuditOutcome,
        code: String?,
        requestId: String
    ) {
        self.sequence = sequence
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
