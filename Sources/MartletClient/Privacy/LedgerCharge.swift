import Synchronization
import TrainerInterface
import WireFormat

/// The one event of one assignment in the device's ledger, recorded before noise is drawn; none after the work was cancelled.
final class LedgerCharge: Sendable {
    private let event: ClientLedger.Event
    private let files: StateFiles
    private let report: KeptReport?
    private let isClosed = Mutex(false)

    /// The event of an assignment; where its report outlives it, `report` says which event pays.
    init(
        _ assignment: Assignment,
        files: StateFiles,
        report: KeptReport? = nil,
        session: HelperSession? = nil
    ) {
        event = ClientLedger.Event(assignment, session: session)
        self.files = files
        self.report = report
    }

    /// Records the event, durably; one that is there already stays the only one.
    ///
    /// - Throws: `LocalTrainingError.cancelled` when the work was cancelled; `ClientError` when the ledger cannot be read or
    ///   written: then nothing is noised.
    func record() throws {
        try isClosed.withLock { isClosed in
            guard !isClosed else { throw LocalTrainingError.cancelled }
            let event = try report?.begin() ?? event
            var ledger = try files.read(.ledger) ?? ClientLedger()
            if ledger.record(event) { try files.write(.ledger, ledger) }
        }
    }

    /// Ends the work when it was cancelled.
    func check() throws {
        if isClosed.withLock({ $0 }) { throw LocalTrainingError.cancelled }
    }

    /// Forbids the event from now on; waits for one that is being recorded.
    func close() { isClosed.withLock { $0 = true } }
}
