/// What `GET /healthz` and `GET /readyz` say.
public struct HealthView: Codable, Equatable, Sendable {
    /// `ok`, `ready`, or `recovering` while the server verifies its data.
    public var status: String
    /// The state of the ledger's second record; `GET /readyz` alone says it.
    public var ledgerRecord: String?

    package init(status: String, ledgerRecord: String? = nil) {
        self.status = status
        self.ledgerRecord = ledgerRecord
    }
}
