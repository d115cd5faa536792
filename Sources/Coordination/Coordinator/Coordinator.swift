package import Foundation
package import Logging
import Tensors
import WireFormat

/// What the coordinator needs from its surroundings.
package struct CoordinatorConfiguration: Sendable {
    /// Holds `blobs/` and `spool/`.
    package var dataDirectory: String
    /// The largest update or model taken.
    package var modelByteLimit: Int = 4 << 30
    /// Bytes of updates on their way in, over all clients; one upload is let in whatever its size.
    package var uploadByteLimit: Int = 2 << 30
    /// Long polls held at once; further ones are answered at once.
    package var waiterLimit: Int = 10_000
    /// Events kept for watchers who come back, about.
    package var eventRetention: Int = 20_000
    /// Event streams open at once, and events that one of them may lag behind.
    package var eventListenerLimit: Int = 256
    package var eventQueueLimit: Int = 512
    package var now: @Sendable () -> Date = { Date() }

    /// The ledger's second record; best on another disk than the database.
    package var ledgerHeadPath: String

    /// The key of the states of correlated noise; best on another disk than they are.
    package var noiseKeyPath: String

    /// Left by `martlet restore`: the database is as old as a backup.
    var restoredNotePath: String { dataDirectory + "/restored.json" }

    package init(dataDirectory: String) {
        self.dataDirectory = dataDirectory
        noiseKeyPath = dataDirectory + "/noise.key"
        ledgerHeadPath = dataDirectory + "/ledger.head"
    }
}

/// All round state: takes every decision, and makes it durable before it is answered.
///
/// The state is read once at start and lives here; each change is one transaction of the store, applied to memory only
/// after it is durable. Long arithmetic runs elsewhere and reports back.
package actor Coordinator {
    package nonisolated let configuration: CoordinatorConfiguration
    package nonisolated let blobs: BlobStore
    nonisolated let logger: Logger
    package nonisolated let metrics: MetricsRegistry
    let store: any RunStore
    let executor = QueueExecutor(label: "martlet.coordinator")

    var populations: [String: PopulationRecord] = [:]
    var tokens: [String: TokenRecord] = [:]
    /// By token id, since the server started; operators' tokens only.
    var tokenLastUsed: [String: Date] = [:]
    /// When disk and database could last be written.
    private var storageCheckedAt = Date.distantPast
    var clients: [String: ClientRecord] = [:]
    var clientsByRegistration: [String: String] = [:]
    var runs: [String: RunState] = [:]
    /// Oldest first, so that runs share a population fairly by turn.
    var runOrder: [String] = []
    var assignments: [String: AssignmentRecord] = [:]
    var liveAssignmentByClient: [String: String] = [:]
    var presence = Presence()
    var ledger = PrivacyLedger()
    /// Why the stored ledger contradicts its second record.
    var ledgerAlarm: String?
    /// What the second record had charged and the stored ledger has not.
    var ledgerLost: [LedgerHead.Group] = []
    /// Totals of populations, good as long as their ledger stands still.
    var budgetStatuses: [String: (key: BudgetStatusKey, status: BudgetStatus)] = [:]
    var epsilons: [EpsilonQuestion: Double] = [:]
    var journal = EventJournal()
    /// Clients of each population by state.
    var clientStateCounts: [String: [String: Int]] = [:]
    var waiters = WaitingClients()
    /// Parsed labels and capabilities, until the client changes.
    var profiles: [String: EligibilityExpression.Subject] = [:]
    /// Nothing waits any more: the server stops.
    var isStopping = false
    var nextRunTurn = 0
    /// By run and attempt, how many clients may join it: counted seldom where they are many.
    var newcomerCounts: [String: (attempt: [Int], until: ContinuousClock.Instant, count: Int)] = [:]
    /// Counting many clients takes a while; the counts are good for a second, or for fifty times as long as they took.
    var clientCounts: (at: Date, goodFor: Double, counts: ClientCounts)?
    let startedAt: Date
    /// When to try again to close a round whose result could not be published.
    var aggregationRetries: [String: Date] = [:]
    /// Noised measurements whose transaction has not succeeded yet, by run.
    var evaluationReleases: [String: (round: Int, attempt: Int, outcome: EvaluationRelease.Outcome)] = [:]
    /// When to look for uploads again that nobody will finish.
    var nextUploadSweep = Date.distantPast

    package nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    /// Reads the stored state and finishes or abandons what was open; answers nothing before.
    package init(
        configuration: CoordinatorConfiguration,
        store: any RunStore,
        logger: Logger,
        metrics: MetricsRegistry = .server()
    ) async throws {
        self.configuration = configuration
        self.store = store
        self.logger = logger
        self.metrics = metrics
        startedAt = configuration.now()
        blobs = try BlobStore(dataDirectory: configuration.dataDirectory)
        try recover()
    }

    var now: Date { configuration.now() }

    /// Does several things in one step, with nobody between them.
    package func perform<Result: Sendable>(
        _ body: @Sendable (isolated Coordinator) throws -> Result
    ) throws -> Result { try body(self) }

    /// Makes changes durable, then applies `body` to memory.
    func commit(_ changes: [StoreChange], ledgerCount: Int? = nil) throws {
        let events = eventChanges(for: changes)
        // The first transaction of an operator's request takes the request's audit row with it.
        let trail = AuditTrail.current
        let row = changes.isEmpty ? nil : trail?.take(at: now, refusal: nil)
        let start = ContinuousClock.now
        do {
            Failpoint.reach()
            try store.commit(changes + events.map(StoreChange.event) + (row.map { [.audit($0)] } ?? []))
            Failpoint.reach()
        } catch {
            if row != nil { trail?.untake() }
            metrics.add("martlet_store_commit_failures_total")
            if let ledgerCount { ledger.truncate(to: ledgerCount) }
            logger.error("A transaction failed", metadata: ["error": "\(error)"])
            throw CoordinationError(
                .unavailable,
                "storage_failed",
                ((error as? StoreFailure) ?? StoreFailure(.other, detail: "")).explanation
            )
        }
        metrics.observe("martlet_store_commit_duration_seconds", (ContinuousClock.now - start) / .seconds(1))
        for change in changes {
            observe(change)
            apply(change)
        }
        if changes.contains(where: { if case .ledger = $0 { true } else { false } }) { writeLedgerHead() }
        told(events)
    }

    private func apply(_ change: StoreChange) {
        switch change {
        case .population(let record): populations[record.id] = record
        case .token(let record): tokens[record.hash] = record
        case .deleteToken(let hash):
            tokens[hash] = nil
            endStreamsWithoutToken()
        case .client(let record):
            if let before = clients[record.id] { clientStateCounts[before.populationId]?[before.state]? -= 1 }
            clientStateCounts[record.populationId, default: [:]][record.state, default: 0] += 1
            clients[record.id] = record
            profiles[record.id] = nil
            if let key = record.registrationKey { clientsByRegistration[key] = record.id }
        case .run(let record): runs[record.id]?.record = record
        case .round(let record): runs[record.runId]?.setRound(record)
        case .assignment(let record):
            noteRefusal(record, before: assignments[record.id]?.state)
            if assignments.updateValue(record, forKey: record.id) == nil {
                runs[record.runId]?.assignmentIDs.append(record.id)
                runs[record.runId]?.noteParticipation(record)
            }
            runs[record.runId]?.members.insert(record.clientId)
            runs[record.runId]?.noteState(of: record)
            if record.state.isLive {
                liveAssignmentByClient[record.clientId] = record.id
            } else if liveAssignmentByClient[record.clientId] == record.id {
                liveAssignmentByClient[record.clientId] = nil
            }
        case .modelVersion(let record): runs[record.runId]?.versions.append(record)
        case .modelMetrics(let record): noteMetrics(record)
        case .history(let row): notePhase(row)
        case .ledger, .audit, .event, .deleteEvents, .updateScore: break
        }
    }

    private func recover() throws {
        let state = try store.load()
        for record in state.populations { populations[record.id] = record }
        for record in state.tokens { tokens[record.hash] = record }
        for record in state.clients { apply(.client(record)) }
        presence.reserve(clients.count)
        for record in state.runs.sorted(by: { ($0.createdAt, $0.id) < ($1.createdAt, $1.id) }) {
            runs[record.id] = try RunState(record: record)
            runOrder.append(record.id)
        }
        for record in state.rounds { runs[record.runId]?.setRound(record) }
        for record in state.modelVersions { runs[record.runId]?.versions.append(record) }
        for record in state.modelMetrics { noteMetrics(record) }
        for row in state.phaseChanges { notePhase(row) }
        try openLedger(state.ledger)
        (journal.firstID, journal.lastID) = state.eventRange
        for record in state.assignments {
            guard isOpen(record) else {
                runs[record.runId]?.noteParticipation(record)
                noteRefusal(record, before: nil)
                continue
            }
            apply(.assignment(record))
        }
        for id in runOrder {
            // Who had a part in the open attempt; of earlier rounds only what still counts is kept in memory.
            guard let run = runs[id], let round = run.round else { continue }
            let now = run.assignmentIDs.compactMap { assignments[$0] }
            runs[id]?.members = Set(
                now.filter { ($0.round, $0.attempt) == (round.number, round.attempt) || !$0.state.isLive }.map(
                    \.clientId
                )
            )
        }
        try verifyFiles(state)
        for run in runOrder {
            renewWhatMemoryHeld(run: run)
            if runs[run]?.round?.phase == .aggregating {
                logger.notice("Resuming an aggregation that a stop interrupted", metadata: ["run.id": "\(run)"])
                startAggregation(run: run)
            } else {
                takeNextStep(run: run)
            }
        }
    }

    /// Whether an assignment still matters: of the open attempt, or in mode `buffered` at work or waiting in the buffer.
    private func isOpen(_ record: AssignmentRecord) -> Bool {
        guard let run = runs[record.runId], let round = run.round, !round.phase.isFinal else {
            return record.state.isLive && runs[record.runId].map { !$0.isOver } ?? false
        }
        if record.round == round.number && record.attempt == round.attempt { return true }
        return run.isBuffered && (record.state.isLive || record.countedRound == round.number)
    }

    /// Whether disk and database can be written.
    ///
    /// Tried once a second at most: everybody may ask, and each try waits for the disk.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed`.
    package func checkStorage() throws {
        guard abs(now.timeIntervalSince(storageCheckedAt)) >= 1 else { return }
        let path = blobs.spoolPath("check")
        // A page of the database: a disk that has not even that is full.
        try BlobStore.writeDurably(Data(count: 4096), to: path)
        try FileManager.default.removeItem(atPath: path)
        try commit([])
        storageCheckedAt = now
    }
}
