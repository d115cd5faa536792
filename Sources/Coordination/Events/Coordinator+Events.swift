import Foundation
import WireFormat

extension Coordinator {
    /// Joins the stream of events; its queue holds `configuration.eventQueueLimit` of them.
    ///
    /// The place is free again when the stream has ended, or nobody holds the subscription any more. The stream ends when the
    /// token that opened it is revoked, rotated or expires.
    ///
    /// - Parameter token: The caller's; `nil` on a server without tokens.
    /// - Returns: What has been stored, and what comes.
    /// - Throws: ``CoordinationError`` with code `too_many_listeners`.
    package func subscribe(token: String? = nil) throws -> EventSubscription {
        guard journal.subscribers.count < configuration.eventListenerLimit else {
            throw CoordinationError(
                .unavailable,
                "too_many_listeners",
                "\(configuration.eventListenerLimit) streams of events are open already; close one or poll"
            )
        }
        let tokenHash = token.map { Secrets.hash(ofToken: $0) }
        // A token that takes all streams would leave none for the dashboards of the others.
        let share = max(2, configuration.eventListenerLimit / 4)
        guard tokenHash == nil || journal.subscribers.values.count(where: { $0.tokenHash == tokenHash }) < share else {
            throw CoordinationError(
                .unavailable,
                "too_many_listeners",
                "this token has \(share) streams of events open, a quarter of what limits.event_streams allows; close one or poll"
            )
        }
        let (stream, continuation) = AsyncStream.makeStream(
            of: EventSignal.self,
            bufferingPolicy: .bufferingOldest(configuration.eventQueueLimit)
        )
        let id = journal.nextSubscriber
        journal.nextSubscriber += 1
        journal.subscribers[id] = .init(stream: continuation, tokenHash: tokenHash)
        continuation.onTermination = { [weak self] _ in Task { await self?.unsubscribe(id) } }
        return EventSubscription(headID: journal.lastID, firstID: journal.firstID, live: stream)
    }

    /// Streams that are open.
    package var listenerCount: Int { journal.subscribers.count }

    private func unsubscribe(_ id: Int) { journal.subscribers[id] = nil }

    /// Stored events with an id over `id`, oldest first; read beside the coordinator.
    package nonisolated func events(after id: Int, limit: Int, run: String? = nil) async throws -> [EventRow] {
        try store.events(after: id, limit: limit, run: run)
    }

    /// The oldest and the newest event that are kept.
    package var eventRange: (first: Int, last: Int) { (journal.firstID, journal.lastID) }

    /// Ends long polls and event streams, so that the server can stop.
    package func stopServing() {
        isStopping = true
        settleHolds()
        wakeAll()
        journal.close()
    }

    // MARK: - Writing

    /// The events that a transaction's changes make, as changes of the same transaction.
    func eventChanges(for changes: [StoreChange]) -> [EventRow] {
        var writer = EventWriter(firstID: journal.lastID + 1, time: now)
        var overlay: [String: RunState] = [:]
        func state(_ run: String) -> RunState? { overlay[run] ?? runs[run] }
        for change in changes {
            switch change {
            case .run(let record):
                guard var run = state(record.id) else { continue }
                run.record = record
                overlay[record.id] = run
                writer.add("run", runEventData(of: run), run: record.id, population: record.populationId)
            case .round(let record):
                guard var run = state(record.runId) else { continue }
                let before = run.round
                run.round = record
                overlay[record.runId] = run
                let isNewPhase =
                    before?.number != record.number || before?.attempt != record.attempt
                    || before?.phase != record.phase
                guard isNewPhase || journal.mayTellProgress(run: record.runId, at: now) else { continue }
                if isNewPhase { journal.toldProgress(run: record.runId, at: now) }
                writer.add("round", view(record, of: run), run: record.runId, population: run.record.populationId)
            case .modelVersion(let record):
                let population = state(record.runId)?.record.populationId
                writer.add("model", view(record), run: record.runId, population: population)
            case .ledger(let row):
                let data = BudgetEventData(
                    population: row.populationId,
                    run: row.runId,
                    round: row.round,
                    attempt: row.attempt,
                    state: row.state,
                    epsilonAfter: row.epsilonAfter
                )
                writer.add("budget", data, run: row.runId, population: row.populationId)
            case .client(let record):
                guard clients[record.id]?.state != record.state,
                    journal.mayTellClients(population: record.populationId, at: now)
                else { continue }
                addClients(record.populationId, clients.stateCounts(with: record), to: &writer)
            case .modelMetrics(let record):
                let values = try? WireCoding.decodeStored([String: Double].self, from: Data(record.metrics.utf8))
                let data = MetricsEventData(
                    run: record.runId,
                    version: record.version,
                    source: record.source,
                    metrics: values ?? [:]
                )
                writer.add("metrics", data, run: record.runId, population: state(record.runId)?.record.populationId)
            case .population, .token, .deleteToken, .assignment, .history, .audit, .event, .deleteEvents, .updateScore:
                continue
            }
        }
        return writer.rows
    }

    /// Writes what was gathered, drops what is too old, and shows listeners that the stream lives; called by the tick.
    func publishPending() throws {
        endStreamsWithoutToken()
        var writer = EventWriter(firstID: journal.lastID + 1, time: now)
        for id in journal.progressWaiting.sorted() where journal.mayTellProgress(run: id, at: now) {
            guard let run = runs[id], let round = run.round else { continue }
            writer.add("round", view(round, of: run), run: id, population: run.record.populationId)
        }
        for id in journal.clientsWaiting.sorted() where journal.mayTellClients(population: id, at: now) {
            addClients(id, clients.stateCounts[id] ?? [:], to: &writer)
        }
        var changes = writer.rows.map(StoreChange.event)
        let oldest = journal.lastID - configuration.eventRetention
        let isLong = oldest - journal.firstID >= configuration.eventRetention / 10
        if isLong { changes.append(.deleteEvents(through: oldest)) }
        if !changes.isEmpty {
            try write(changes)
            if isLong { journal.firstID = oldest + 1 }
            told(writer.rows)
        }
        let silence = now.timeIntervalSince(journal.lastKeepAlive)
        if !(0..<EventJournal.keepAliveInterval).contains(silence) {
            journal.lastKeepAlive = now
            journal.publish(.keepAlive)
        }
    }

    /// Hands stored events to those who listen.
    func told(_ rows: [EventRow]) {
        guard let last = rows.last else { return }
        journal.lastID = last.id
        endStreamsWithoutToken()
        for row in rows { journal.publish(.event(row)) }
    }

    /// Whoever lost the right to listen hears nothing more.
    func endStreamsWithoutToken() {
        journal.endStreams { hash in tokens.valid(hash, at: now) != nil }
    }

    private func addClients(_ population: String, _ counts: [ClientStanding: Int], to writer: inout EventWriter) {
        let data = ClientsEventData(population: population, clients: counts.shown)
        writer.add("clients", data, run: nil, population: population)
    }

    private func runEventData(of run: RunState) -> RunEventData {
        RunEventData(
            id: run.record.id,
            name: run.record.name,
            population: run.record.populationId,
            state: run.record.state,
            reason: run.record.reason,
            createdAt: run.record.createdAt.wireTimestamp,
            round: abs(run.round?.number ?? 0),
            committedRounds: max(0, run.versions.count - 1),
            modelVersion: run.versions.last?.version,
            modelSha256: run.versions.last?.sha256,
            epsilon: run.rounds.last(where: { $0.phase == .committed })?.epsilon,
            waitingFor: waitingFor(run)
        )
    }
}

/// Numbers events and gives them their JSON.
private struct EventWriter {
    private(set) var rows: [EventRow] = []
    private let firstID: Int
    private let time: Date

    init(firstID: Int, time: Date) {
        self.firstID = firstID
        self.time = time
    }

    mutating func add(_ type: String, _ data: some Encodable, run: String?, population: String?) {
        guard let bytes = try? WireCoding.encode(data) else { return }
        rows.append(
            EventRow(
                id: firstID + rows.count,
                at: time,
                type: type,
                runId: run,
                populationId: population,
                data: String(decoding: bytes, as: UTF8.self)
            )
        )
    }
}
