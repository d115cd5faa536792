import Foundation
package import Logging
import Tensors
import WireFormat

/// All round state: takes every decision, and makes it durable before it is answered.
///
/// What it knows are values, such as `RunTable`, `Placement` and `PrivacyBudgets`, which decide without a store, a clock or a
/// logger. The actor asks them, stores what they answer in one transaction, and applies that to memory only after it is durable. Long
/// arithmetic runs elsewhere and reports back.
package actor Coordinator {
    package nonisolated let configuration: CoordinatorConfiguration
    package nonisolated let blobs: any BlobStore
    nonisolated let logger: Logger
    package nonisolated let metrics: MetricsRegistry
    /// What the disk has refused lately.
    package nonisolated let storage: StorageHealth
    let store: any StoreReading
    let executor = QueueExecutor(label: "martlet.coordinator")
    let startedAt: Date

    // What is stored, as it is in memory.
    var populations = PopulationTable()
    var tokens = TokenTable()
    var clients = ClientTable()
    var runs = RunTable()
    var budgets = PrivacyBudgets()
    var journal = EventJournal()

    // What no transaction keeps.
    var placement = Placement()
    var publication = RunPublication()
    var protection = ProtectionDesk()
    var lostTime = LostTime()
    /// Nothing waits any more: the server stops.
    var isStopping = false
    /// What requests that bring updates may still write.
    var uploadPermits = UploadPermits()
    /// Whether the rest of the long polls is being looked at.
    var isWaking = false
    /// When missing and damaged model files were last looked at again, and when to look for uploads that nobody will finish.
    var modelsCheckedAt = Date.distantPast
    var nextUploadSweep = Date.distantPast
    /// When disk and database could last be written.
    private var storageCheck: (at: Date, answer: Task<Void, any Error>)?

    // The ways to the disk.
    var writer: StoreWriter
    let ledgerRecord: LedgerRecordFile
    let arithmeticDesk: ArithmeticDesk
    let claimDesk: ClaimDesk
    let modelFiles: ModelFiles
    let updates: UpdateFiles
    var noiseStates: NoiseStateFiles
    var signOfLife: SignOfLife

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
        let storage = StorageHealth(logger: logger, metrics: metrics, now: configuration.now)
        self.storage = storage
        writer = StoreWriter(store, storage: storage, metrics: metrics, logger: logger)
        ledgerRecord = LedgerRecordFile(configuration: configuration, storage: storage, logger: logger)
        let blobs = try DirectoryBlobStore(dataDirectory: configuration.dataDirectory)
        self.blobs = blobs
        let desk = ArithmeticDesk()
        arithmeticDesk = desk
        claimDesk = ClaimDesk(desk)
        modelFiles = ModelFiles(blobs: blobs, logger: logger)
        updates = UpdateFiles(blobs: blobs)
        noiseStates = NoiseStateFiles(
            blobs: blobs,
            keys: NoiseKeys(sharedPath: configuration.noiseKeyPath),
            storage: storage,
            logger: logger
        )
        signOfLife = SignOfLife(path: configuration.dataDirectory + "/alive")
        try recover()
    }

    var now: Date { configuration.now() }

    /// Does several things in one step, with nobody between them.
    package func perform<Result: Sendable>(
        _ body: @Sendable (isolated Coordinator) throws -> Result
    ) throws -> Result { try body(self) }

    // MARK: - Transactions

    /// Makes changes durable, then applies them to memory.
    ///
    /// - Parameters:
    ///   - changes: One transaction.
    ///   - ledgerCount: How many rows the ledger had before those that are among the changes: they are taken back if this fails.
    /// - Throws: ``CoordinationError``; nothing has changed then.
    func commit(_ changes: [StoreChange], ledgerCount: Int? = nil) throws {
        let events = journal.rows(for: changes, eventSources, at: now)
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
            metrics.count(change, before: runs, at: now) { plannedByteCount(ofRun: $0) }
            apply(change)
        }
        if changes.contains(where: { if case .deleteToken = $0 { true } else { false } }) { endStreamsWithoutToken() }
        if changes.contains(where: { if case .ledger = $0 { true } else { false } }) {
            ledgerRecord.write(&budgets, at: now)
        }
        journal.tell(events, unless: mayListen)
    }

    /// Makes changes durable and leaves memory to the caller; nothing else writes to the store.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed`: they are not stored, or the writer is in doubt.
    func write(_ changes: [StoreChange]) throws {
        try resolveDoubt()
        try writer.write(changes)
    }

    /// Asks the store about a transaction that failed when it could not be asked; nothing else is stored before it has answered.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed` while it cannot, and once when the state was read again: what a caller
    ///   decided by the old one is decided again.
    func resolveDoubt() throws {
        guard try !writer.settle(updates) else { return }
        do {
            try reload()
        } catch {
            throw writer.refusal(noting: error)
        }
        throw CoordinationError(.unavailable, "storage_failed", "the database was read again; send it again")
    }

    private func apply(_ change: StoreChange) {
        switch change {
        case .population(let record): populations.set(record)
        case .token(let record): tokens.set(record)
        case .deleteToken(let hash): tokens.remove(hash)
        case .client(let record):
            clients.set(record)
            placement.noteChanged(client: record.id)
        case .run(let record):
            if runs.set(record), let run = runs[record.id] { placement.noteState(of: run) }
        case .round(let record): runs[record.runId]?.setRound(record)
        case .assignment(let record):
            runs.set(record)
            placement.noteChanged(client: record.clientId, run: record.runId)
            if let refusal = record.uploadRefusal { endUpload(of: record.id, refusal) }
        case .modelVersion(let record): runs[record.runId]?.versions.append(record)
        case .modelMetrics(let record): runs[record.runId]?.noteMetrics(record)
        case .history(let row): runs[row.runId]?.notePhase(row)
        case .protectedSession(let record):
            runs[record.runId]?.setSession(record)
            protection.note(record)
        case .ledger, .audit, .event, .deleteEvents, .updateScore, .pseudonym: break
        }
    }

    // MARK: - Start

    private func recover() throws {
        let state = try store.loadForStart()
        try removeTokens(try take(state))
        try budgets.open(state.ledger, populations)
        try ledgerRecord.open(&budgets, at: now)
        try verifyFiles(state)
        for run in runs.open { checkSettings(run: run) }
        try endWithdrawnRuns()
        noteStart()
        goOn()
    }

    /// Reads the stored state, then forgets what memory holds; files and arithmetic that are at work go on.
    ///
    /// - Throws: What reading throws; memory is as it was then, or holds everything that was read.
    private func reload() throws {
        let state = try store.loadForStart()
        let ledger = try PrivacyLedger(verifying: state.ledger)
        let left = try DataDirectoryCheck(state: state, blobs: blobs).leftovers()
        populations = PopulationTable()
        tokens.removeAll()
        clients.removeAll()
        runs.removeAll()
        placement.forgetRuns()
        _ = try take(state)
        budgets.take(ledger)
        // Memory is what is stored: the runs may go on.
        writer.noteRead()
        ledgerRecord.write(&budgets, at: now)
        publication.keepOpen(runs)
        runs.dropUnknownNorms()
        endUnwantedUploads()
        dropUnneededNoise()
        blobs.removeAtOnce(left.filter { !$0.contains(".part") }.map(blobs.spoolPath))
        // Listeners missed the events of the transaction: they resume by the last one that they were told.
        journal.close()
        goOn()
    }

    /// Puts what is stored into memory, the ledger apart.
    ///
    /// - Returns: Hashes of tokens that the database need not hold.
    private func take(_ state: StoredState) throws -> [String] {
        for record in state.populations.sorted(by: { ($0.createdAt, $0.id) < ($1.createdAt, $1.id) }) {
            populations.set(record)
        }
        let unneeded = tokens.load(state.tokens, at: now)
        clients.reserve(state.clients.count)
        for record in state.clients { clients.set(record) }
        try runs.load(state)
        protection.forgetStored()
        for record in state.protectedSessions { protection.note(record) }
        (journal.firstID, journal.lastID) = state.eventRange
        return unneeded
    }

    /// Holds the files against the state that was read: what is left over goes, and an attempt that lost an acknowledged update is
    /// abandoned, since its result would not be that of the updates that were accepted.
    private func verifyFiles(_ state: StoredState) throws {
        let check = DataDirectoryCheck(state: state, blobs: blobs)
        let lost = Dictionary(grouping: check.lostUpdates(), by: \.runId)
        for (id, records) in lost.sorted(by: { $0.key < $1.key }) {
            logger.error(
                "Acknowledged updates are missing from the spool; their attempt is abandoned",
                metadata: ["run.id": "\(id)", "count": "\(records.count)"]
            )
            // What this directory lost another one may have: a backup leaves these files out. So a charge stays.
            guard let run = runs[id], !(budgets.trust.isUndecided && run.specification.isPrivate) else {
                if let round = runs[id]?.round { budgets.trust.attemptsWithLostUpdates.insert(ChargedAttempt(round)) }
                continue
            }
            // How many there were of a secret draw is in the server's log alone.
            let count = run.specification.privacy.hasSecretDraw ? "" : "\(records.count) "
            let reason = "\(count)acknowledged updates were missing or damaged after a stop"
            try abandon(run: id, reason: reason, cost: .apart)
        }
        blobs.removeAtOnce(try check.leftovers().map(blobs.spoolPath))
        PartialFiles.remove(configuration, storage)
        try abandonAfterRestore()
        for directory in [blobs.noiseDirectory, noiseStates.keys.directory, blobs.spoolDirectory] {
            DurableFiles.distrust(directory)
        }
        dropUnneededNoise()
        try updates.recover(isWanted: mayDeliver)
        modelFiles.verifyAtStart(runs)
    }

    /// Abandons every open attempt of private runs on what `martlet restore` made, once, each with its cost.
    ///
    /// Whatever the second record says: the server that is gone may have had work of them handed out, and devices that released an
    /// update for it would release another one here, for one charge. While the ledger's alarm stands, nothing moves; its
    /// acknowledgement abandons them.
    private func abandonAfterRestore() throws {
        guard budgets.trust.isRestoreDue, budgets.trust.alarm == nil else { return consumeRestoredNote() }
        try abandonPrivateAttempts(reason: "the server was restored from a backup", cost: .apart)
        budgets.trust.noteRestoreSettled()
        consumeRestoredNote()
    }

    /// Does what a restore asks for as soon as its note can be read, and removes the note as soon as the disk lets it go.
    func settleRestore() {
        guard budgets.trust.isRestored else { return }
        do { try abandonAfterRestore() } catch {
            // Private runs stand still until a tick has done it.
            if let failure = StorageFailure(error) { storage.note(failure) }
        }
    }

    /// Removes the note of a restore when all that it is for is stored: an alarm, and a record that cannot be read, still need it.
    func consumeRestoredNote() {
        guard budgets.trust.isRestored, !budgets.trust.isInQuestion else { return }
        do {
            try DurableFiles.remove([configuration.restoredNotePath], in: configuration.dataDirectory)
            budgets.trust.noteRestoredNoteGone()
        } catch {
            // The next tick tries again; until then a start would abandon what has opened since.
            if let failure = StorageFailure(error) { storage.note(failure) }
        }
    }

    /// Ends runs whose mechanism is offered no more: what they have published stays charged as it was, and no more is.
    private func endWithdrawnRuns() throws {
        for id in runs.open {
            guard let run = runs[id], run.specification.analytics?.isSampled == true else { continue }
            let cause =
                "method triehh is offered no more: its promise does not hold against clients that work together. The words that "
                + "were found stay; a new run with method votes finds more"
            logger.warning("A run of a withdrawn method ends", metadata: ["run.id": "\(id)"])
            try drive(run: id, .failed(code: RunSpecification.withdrawnMethod, cause: cause))
        }
    }

    /// Goes on with every run from where the stored state has it.
    private func goOn() {
        for run in runs.order {
            renewWhatMemoryHeld(run: run)
            if runs[run]?.round?.phase == .aggregating {
                logger.notice("Resuming an aggregation that was interrupted", metadata: ["run.id": "\(run)"])
                startAggregation(run: run)
            } else {
                takeNextStep(run: run)
            }
        }
    }

    /// Begins again what no transaction keeps: every client has its whole lease again, and a cohort is chosen of those who come from now
    /// on.
    private func renewWhatMemoryHeld(run id: String) {
        runs.renewLeases(run: id, at: now)
        guard let run = runs[id], let round = run.round, round.phase.isCollecting else { return }
        prepareSelection(run: id, terms: run.terms(of: round))
        countDrawIfNeeded(run: id)
        do {
            try drive(run: id, [.arrivalsForgotten])
        } catch {
            logger.error("A selection could not begin anew", metadata: ["run.id": "\(id)", "error": "\(error)"])
        }
    }

    // MARK: - Health

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
                try DurableFiles.write(Data(count: 4096), to: path)
                try DurableFiles.remove([path], in: (path as NSString).deletingLastPathComponent)
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
