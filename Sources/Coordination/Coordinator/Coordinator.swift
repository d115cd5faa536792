package import DifferentialPrivacy
package import Foundation
package import Logging
import Tensors
import WireFormat

#if canImport(Glibc)
import Glibc
#endif

/// What the coordinator needs from its surroundings.
package struct CoordinatorConfiguration: Sendable {
    /// Holds `blobs/` and `spool/`.
    package var dataDirectory: String
    /// The largest update or model taken.
    package var modelByteLimit: Int = 4 << 30
    /// Bytes of updates on their way in, over all clients; one upload is let in whatever its size.
    package var uploadByteLimit: Int = 2 << 30
    /// Requests of one client a second that are answered; `nil` for any number.
    package var clientRequestsPerSecond: Double?
    /// Long polls held at once; further ones are answered at once.
    package var waiterLimit: Int = 10_000
    /// Runs that have not ended, over all populations: a check-in looks at each one of its population.
    package var openRunLimit: Int = 200
    /// Events kept for watchers who come back, about.
    package var eventRetention: Int = 20_000
    /// Event streams open at once, and events that one of them may lag behind.
    package var eventListenerLimit: Int = 256
    package var eventQueueLimit: Int = 512
    package var now: @Sendable () -> Date = { Date() }

    /// The ledger's second record; best on another disk than the database.
    package var ledgerHeadPath: String

    /// Where the second record lies unless it is configured to lie elsewhere.
    var defaultLedgerHeadPath: String { dataDirectory + "/ledger.head" }

    /// Whether a second record that is not there may be made of what the database holds: for the first start that names one.
    package var mayMakeLedgerHead = false

    /// Seconds between two ticks after which the server counts as having been away, so that deadlines get the time back; `nil`
    /// where ticks come as they please.
    package var awayAfterSeconds: Double?

    /// Where keys of the states of correlated noise lie: each run's is this path with `.RUN`; best on another disk than the states.
    package var noiseKeyPath: String

    /// Draws the key of an attempt's noise; no setting reaches it, and tests that compare models to the bit put a known one here.
    package var drawNoiseKey: @Sendable (_ run: String, _ round: Int) -> NoiseKey = { _, _ in NoiseKey() }

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
    let store: any StoreReading
    /// The same store; every transaction goes through ``write(_:)``, which alone knows what a failed one has come to.
    private let writer: any RunStore
    let executor = QueueExecutor(label: "martlet.coordinator")

    var populations = PopulationTable()
    var tokens = TokenTable()
    /// When disk and database could last be written.
    private var storageCheck: (at: Date, answer: Task<Void, any Error>)?
    var clients = ClientTable()
    var runs: [String: RunState] = [:]
    /// Oldest first, so that runs share a population fairly by turn.
    var runOrder: [String] = []
    /// Runs that have not ended, oldest first: of all populations, and of each.
    var openRuns: [String] = []
    var openRunsByPopulation: [String: [String]] = [:]
    /// Runs that failed, in the order in which they did.
    var failedRuns: [String] = []
    /// The state of each run that the lists above go by, and how many runs are in which.
    private var listedStates: [String: RunPhase] = [:]
    var runStateCounts: [RunPhase: Int] = [:]
    /// The runs that build on each run's model.
    var runsByBase: [String: [String]] = [:]
    var assignments: [String: AssignmentRecord] = [:]
    /// Squared L2 norms of accepted updates of open rounds, by assignment, where a run bounds norms: what admission measured is
    /// not stored, and measured again after a restart.
    var squaredNorms: [String: Double] = [:]
    var liveAssignmentByClient: [String: String] = [:]
    var budgets = PrivacyBudgets()
    let ledgerRecord: LedgerRecordFile
    let claimDesk = ClaimDesk()
    /// Whether exact sums of correlated noise wait to be deleted, because the disk refused it.
    var isNoiseLeft = false
    /// Runs whose clock stands still, and since when.
    var holds: [String: Date] = [:]
    /// When missing and damaged model files were last looked at again.
    var modelsCheckedAt = Date.distantPast
    /// When the last tick was.
    var lastTick: Date?
    /// When the file that says so was last touched.
    var aliveMarkedAt = Date.distantPast
    /// By run, the size of one update, and of one client's measurements.
    var plannedByteCounts: [String: Int] = [:]
    var journal = EventJournal()
    var waiters = WaitingClients()
    /// Nothing waits any more: the server stops.
    var isStopping = false
    var nextRunTurn = 0
    /// Answers about many clients, as they were counted last.
    var tallies: [String: Tally] = [:]
    /// The attempt of each run whose waiting clients have been looked at for a drawn cohort.
    var drawsTold: [String: [Int]] = [:]
    /// Whether the rest of the long polls is being looked at.
    var isWaking = false
    let startedAt: Date
    /// Closed rounds that wait for the disk, by run.
    var stalls: [String: Stall] = [:]
    /// Runs whose arithmetic is going on.
    var aggregating: Set<String> = []
    /// What the noise of each run's closed attempt is made of, until its result is durable.
    var noiseKeys: [String: (round: Int, attempt: Int, key: NoiseKey)] = [:]
    /// Results that are files and not published yet, by run.
    var outcomes: [String: (round: Int, attempt: Int, outcome: AggregationJob.Outcome)] = [:]
    /// What the disk has refused lately.
    package nonisolated let storage: StorageHealth
    /// Whether memory is what is stored.
    private var doubt = Doubt.none
    /// Assignments whose update was moved among the accepted ones by a transaction in doubt.
    var movedInDoubt: Set<String> = []
    /// Noised measurements whose transaction has not succeeded yet, by run.
    var evaluationReleases: [String: (round: Int, attempt: Int, outcome: EvaluationRelease.Outcome)] = [:]
    /// Open attempts at which nobody is at work.
    var newcomerSearches: [String: NewcomerSearch] = [:]
    /// Requests that bring bytes of an update now, by assignment.
    var openUploads: [String: Int] = [:]
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
        writer = store
        self.logger = logger
        self.metrics = metrics
        startedAt = configuration.now()
        storage = StorageHealth(logger: logger, metrics: metrics, now: configuration.now)
        ledgerRecord = LedgerRecordFile(configuration: configuration, storage: storage, logger: logger)
        blobs = try BlobStore(dataDirectory: configuration.dataDirectory)
        try recover()
    }

    var now: Date { configuration.now() }

    /// Does several things in one step, with nobody between them.
    package func perform<Result: Sendable>(
        _ body: @Sendable (isolated Coordinator) throws -> Result
    ) throws -> Result { try body(self) }

    /// Whether memory is what is stored, after a transaction that failed.
    private enum Doubt {
        case none
        /// The store could not be asked whether the transaction is stored all the same.
        case unsettled
        /// It is stored, and memory does not have it: the state has to be read again.
        case unread
    }

    /// Whether a transaction that failed may be stored.
    var isInDoubt: Bool { doubt != .none }

    /// Makes changes durable, then applies them to memory.
    ///
    /// - Parameters:
    ///   - changes: One transaction.
    ///   - ledgerCount: How many rows the ledger had before those that are among the changes: they are taken back where this fails.
    /// - Throws: ``CoordinationError``; nothing has changed then.
    func commit(_ changes: [StoreChange], ledgerCount: Int? = nil) throws {
        let events = eventChanges(for: changes)
        // The first transaction of an operator's request takes the request's audit row with it.
        let trail = AuditTrail.current
        let row = changes.isEmpty ? nil : trail?.take(at: now, refusal: nil)
        let generation = budgets.generation
        let start = ContinuousClock.now
        do {
            try write(changes + events.map(StoreChange.event) + (row.map { [.audit($0)] } ?? []))
        } catch {
            if row != nil { trail?.untake() }
            if let ledgerCount { budgets.takeBack(to: ledgerCount, generation: generation) }
            throw error
        }
        metrics.observe("martlet_store_commit_duration_seconds", (ContinuousClock.now - start) / .seconds(1))
        for change in changes {
            observe(change)
            apply(change)
        }
        if changes.contains(where: { if case .deleteToken = $0 { true } else { false } }) { endStreamsWithoutToken() }
        if changes.contains(where: { if case .ledger = $0 { true } else { false } }) {
            ledgerRecord.write(&budgets, at: now)
        }
        told(events)
    }

    /// Makes changes durable and leaves memory to the caller; nothing else writes to the store.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed`: they are not stored, or ``isInDoubt`` holds.
    func write(_ changes: [StoreChange]) throws {
        try resolveDoubt()
        do {
            Failpoint.reach()
            try writer.commit(changes)
            Failpoint.reach()
            storage.noteSuccess(.database)
        } catch {
            metrics.add("martlet_store_commit_failures_total")
            guard wasStored(after: error) else { throw Self.refusal(of: error) }
        }
    }

    /// Whether a transaction is stored although it failed; asked before anybody is answered.
    private func wasStored(after error: any Error) -> Bool {
        let refusal = Self.refusal(of: error)
        if let failure = refusal.storage { storage.note(failure) }
        logger.error("A transaction failed", metadata: ["error": "\(error)"])
        if (error as? StoreFailure)?.cause == .unsettled {
            // The store's answer would be about another transaction.
            doubt = .unsettled
            return false
        }
        do {
            let isStored = try writer.wasLastCommitStored()
            if isStored { logger.notice("The transaction that failed is stored all the same") }
            return isStored
        } catch {
            doubt = .unsettled
            logger.error(
                "The database cannot be read again: nothing is changed until it can",
                metadata: ["error": "\(error)"]
            )
            return false
        }
    }

    /// Asks the store about a transaction that failed when it could not be asked; nothing else is stored before it has answered.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed` while it cannot, and once when the state was read anew: what a caller
    ///   decided by the old one is decided again.
    func resolveDoubt() throws {
        guard isInDoubt else { return }
        do {
            if doubt == .unsettled {
                doubt = try writer.wasLastCommitStored() ? .unread : .none
                // Nobody was told that they are here, and the next try brings them again.
                // At once: the next try puts files of the same names there.
                if !isInDoubt {
                    for path in movedInDoubt.flatMap({ [blobs.updatePath(of: $0), blobs.receiptPath(of: $0)] }) {
                        unlink(path)
                    }
                }
                movedInDoubt = []
                guard isInDoubt else { return }
                logger.notice("The transaction that failed is stored: the state is read again")
            }
            try reload()
        } catch {
            if let failure = StorageFailure(error) { storage.note(failure) }
            throw Self.refusal(of: error)
        }
        throw CoordinationError(.unavailable, "storage_failed", "the database was read again; send it again")
    }

    /// What a caller hears of a store that failed.
    private static func refusal(of error: any Error) -> CoordinationError {
        (error as? CoordinationError) ?? ((error as? StoreFailure) ?? StoreFailure(.other, detail: "")).error
    }

    /// Reads the stored state, then forgets what memory holds; files and arithmetic that are at work go on.
    ///
    /// - Throws: What reading throws; memory is as it was then, or holds everything that was read.
    private func reload() throws {
        let state = try store.loadForStart()
        let ledger = try PrivacyLedger(verifying: state.ledger)
        populations = PopulationTable()
        tokens.removeAll()
        clients.removeAll()
        runs = [:]
        runOrder = []
        openRuns = []
        openRunsByPopulation = [:]
        failedRuns = []
        listedStates = [:]
        runStateCounts = [:]
        runsByBase = [:]
        assignments = [:]
        liveAssignmentByClient = [:]
        tallies = [:]
        drawsTold = [:]
        newcomerSearches = [:]
        _ = try take(state)
        budgets.take(ledger)
        // Memory is what is stored: the runs may go on.
        doubt = .none
        ledgerRecord.write(&budgets, at: now)
        forgetEnded(state)
        // Listeners missed the events of the transaction: they resume by the last one that they heard of.
        journal.close()
        goOn()
    }

    /// Drops what memory and the spool hold of attempts that the stored state says are over; uploads and arithmetic go on.
    private func forgetEnded(_ state: StoredState) {
        for id in runOrder {
            let round = runs[id]?.round
            func isOpen(_ number: Int, _ attempt: Int) -> Bool {
                round.map { $0.number == number && $0.attempt == attempt && !$0.phase.isFinal } ?? false
            }
            if let known = noiseKeys[id], !isOpen(known.round, known.attempt) { noiseKeys[id] = nil }
            if let known = outcomes[id], !isOpen(known.round, known.attempt) { outcomes[id] = nil }
            if let known = evaluationReleases[id], !isOpen(known.round, known.attempt) { evaluationReleases[id] = nil }
            if round?.phase != .aggregating { stalls[id] = nil }
        }
        squaredNorms = squaredNorms.filter { assignments[$0.key] != nil }
        let left = DataDirectoryCheck(state: state, blobs: blobs).leftovers()
        for name in left where !name.contains(".part") { unlink(blobs.spoolPath(name)) }
    }

    private func apply(_ change: StoreChange) {
        switch change {
        case .population(let record): populations.set(record)
        case .token(let record): tokens.set(record)
        case .deleteToken(let hash): tokens.remove(hash)
        case .client(let record):
            clients.set(record)
            for run in newcomerSearches.keys { newcomerSearches[run]?.changed.insert(record.id) }
        case .run(let record):
            runs[record.id]?.record = record
            noteState(ofRun: record.id)
        case .round(let record): runs[record.runId]?.setRound(record)
        case .assignment(let record):
            noteRefusal(record, before: assignments[record.id]?.state)
            if assignments[record.id] == nil { runs[record.runId]?.noteParticipation(record) }
            place(record)
        case .modelVersion(let record): runs[record.runId]?.versions.append(record)
        case .modelMetrics(let record): noteMetrics(record)
        case .history(let row): notePhase(row)
        case .ledger, .audit, .event, .deleteEvents, .updateScore: break
        }
    }

    /// Puts an assignment where it is looked for; what is counted of it stays as it is.
    private func place(_ record: AssignmentRecord) {
        if assignments.updateValue(record, forKey: record.id) == nil {
            runs[record.runId]?.assignmentIDs.append(record.id)
        }
        runs[record.runId]?.noteMember(record)
        runs[record.runId]?.noteState(of: record)
        if record.state.isLive {
            liveAssignmentByClient[record.clientId] = record.id
        } else if liveAssignmentByClient[record.clientId] == record.id {
            liveAssignmentByClient[record.clientId] = nil
        }
        newcomerSearches[record.runId]?.changed.insert(record.clientId)
    }

    private func recover() throws {
        let state = try store.loadForStart()
        try removeTokens(try take(state))
        try budgets.open(state.ledger, populations)
        try ledgerRecord.open(&budgets, at: now)
        try verifyFiles(state)
        for run in openRuns { checkSettings(run: run) }
        try endWithdrawnRuns()
        noteStart()
        goOn()
    }

    /// Puts what is stored into memory, the ledger apart.
    ///
    /// - Returns: Hashes of tokens that the database need not hold.
    private func take(_ state: StoredState) throws -> [String] {
        for record in state.populations.sorted(by: { ($0.createdAt, $0.id) < ($1.createdAt, $1.id) }) {
            apply(.population(record))
        }
        let unneeded = tokens.load(state.tokens, at: now)
        clients.reserve(state.clients.count)
        for record in state.clients { apply(.client(record)) }
        for record in state.runs.sorted(by: { ($0.createdAt, $0.id) < ($1.createdAt, $1.id) }) {
            add(try RunState(record: record))
        }
        for record in state.rounds { runs[record.runId]?.setRound(record) }
        for record in state.modelVersions { runs[record.runId]?.versions.append(record) }
        for record in state.modelMetrics { noteMetrics(record) }
        for row in state.phaseChanges { notePhase(row) }
        (journal.firstID, journal.lastID) = state.eventRange
        for record in state.participations { runs[record.runId]?.setParticipation(record) }
        for row in state.refusals {
            runs[row.runId]?.refusals[row.round, default: [:]][row.code, default: 0] += row.count
        }
        // In the order of their turns: a client's last one says whether it may have another.
        for record in state.assignments.sorted(by: { $0.turn < $1.turn }) where isOpen(record) { place(record) }
        for id in runOrder { barAfterRestart(run: id) }
        return unneeded
    }

    /// Goes on with every run from where the stored state has it.
    private func goOn() {
        for run in runOrder {
            renewWhatMemoryHeld(run: run)
            if runs[run]?.round?.phase == .aggregating {
                logger.notice("Resuming an aggregation that was interrupted", metadata: ["run.id": "\(run)"])
                startAggregation(run: run)
            } else {
                takeNextStep(run: run)
            }
        }
    }

    /// Notes a run that is new, and what it builds on.
    func add(_ run: RunState) {
        let id = run.record.id
        runs[id] = run
        runOrder.append(id)
        if let base = run.specification.model.base?.run { runsByBase[base, default: []].append(id) }
        noteState(ofRun: id)
    }

    /// Keeps the lists of runs by what they are doing.
    private func noteState(ofRun id: String) {
        guard let run = runs[id] else { return }
        let before = listedStates.updateValue(run.record.state, forKey: id)
        guard before != run.record.state else { return }
        if let before { runStateCounts[before, default: 0] -= 1 }
        runStateCounts[run.record.state, default: 0] += 1
        // Who waits may have work now.
        drawsTold[id] = nil
        if run.record.state == .failed { failedRuns.append(id) }
        let population = run.record.populationId
        if run.isOver {
            openRuns.removeAll { $0 == id }
            openRunsByPopulation[population]?.removeAll { $0 == id }
            tallies[id] = nil
        } else if before == nil {
            openRuns.append(id)
            openRunsByPopulation[population, default: []].append(id)
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
    /// Tried once a second at most, away from the actor, and a failure is an answer for a second too: everybody may ask, and each try
    /// waits for the disk.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed`.
    package func checkStorage() async throws {
        if let check = storageCheck, abs(now.timeIntervalSince(check.at)) < 1 { return try await check.answer.value }
        let path = blobs.spoolPath("check")
        let answer = Task { [weak self] in
            try await DispatchQueue.global(qos: .utility).result {
                // A page of the database: a disk that has not even that is full.
                try BlobStore.writeDurably(Data(count: 4096), to: path)
                try BlobStore.removeDurably([path], in: (path as NSString).deletingLastPathComponent)
            }
            try await self?.checkDatabase()
        }
        storageCheck = (now, answer)
        do {
            try await answer.value
        } catch {
            if let failure = StorageFailure(error) { storage.note(failure) }
            throw error
        }
    }

    private func checkDatabase() throws {
        try commit([])
        storage.noteSuccess(.update)
    }
}
