/// `GET /v1/ledger`.
package struct LedgerStateView: Codable, Equatable, Sendable {
    package var rows: Int
    package var head: String
    /// Why private rounds are refused until an acknowledgement; `null` when they are not.
    package var alarm: String?
    /// The second record: `kept`, `unwritable` or `unread` (private runs wait and go on by themselves), or `alarm`.
    package var record: String
    /// Why it is `unwritable` or `unread`.
    package var recordReason: String?
    /// Where each population's own ledger stands: what devices are told, for an auditor to keep.
    package var populations: [PopulationLedgerHead]

    package init(
        rows: Int,
        head: String,
        alarm: String? = nil,
        record: String,
        recordReason: String? = nil,
        populations: [PopulationLedgerHead]
    ) {
        self.rows = rows
        self.head = head
        self.alarm = alarm
        self.record = record
        self.recordReason = recordReason
        self.populations = populations
    }
}
