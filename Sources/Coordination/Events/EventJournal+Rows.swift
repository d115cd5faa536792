import Foundation
import WireFormat

/// What events tell: the state as it is before a transaction's changes.
struct EventSources {
    let runs: RunTable
    let clients: ClientTable
    /// How far a run is, with the changes that the transaction has made to it so far.
    let progress: (RunState) -> RunProgress
}

extension EventJournal {
    /// The events that a transaction's changes make, for the same transaction.
    mutating func rows(for changes: [StoreChange], _ sources: EventSources, at time: Date) -> [EventRow] {
        var writer = EventWriter(firstID: lastID + 1, time: time)
        var overlay: [String: RunState] = [:]
        func state(_ run: String) -> RunState? { overlay[run] ?? sources.runs[run] }
        for change in changes {
            switch change {
            case .run(let record):
                guard var run = state(record.id) else { continue }
                run.record = record
                overlay[record.id] = run
                writer.add("run", sources.progress(run).event, run: record.id, population: record.populationId)
            case .round(let record):
                guard var run = state(record.runId) else { continue }
                let before = run.round
                run.round = record
                overlay[record.runId] = run
                let isNewPhase =
                    before?.number != record.number || before?.attempt != record.attempt
                    || before?.phase != record.phase
                guard isNewPhase || mayTellProgress(run: record.runId, at: time) else { continue }
                if isNewPhase { toldProgress(run: record.runId, at: time) }
                let data = sources.progress(run).view(record, sources.runs)
                writer.add("round", data, run: record.runId, population: run.record.populationId)
            case .modelVersion(let record):
                guard let run = state(record.runId) else { continue }
                writer.add("model", run.view(record), run: record.runId, population: run.record.populationId)
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
                guard sources.clients[record.id]?.state != record.state,
                    mayTellClients(population: record.populationId, at: time)
                else { continue }
                writer.addClients(record.populationId, sources.clients.stateCounts(with: record))
            case .modelMetrics(let record):
                let values = try? WireCoding.decodeStored([String: Double].self, from: Data(record.metrics.utf8))
                let data = MetricsEventData(
                    run: record.runId,
                    version: record.version,
                    source: record.source,
                    metrics: values ?? [:]
                )
                writer.add("metrics", data, run: record.runId, population: state(record.runId)?.record.populationId)
            case .population, .token, .deleteToken, .assignment, .history, .audit, .event, .deleteEvents, .updateScore,
                .protectedSession, .pseudonym:
                continue
            }
        }
        return writer.rows
    }

    /// The events that were gathered and may be told now.
    mutating func gatheredRows(_ sources: EventSources, at time: Date) -> [EventRow] {
        var writer = EventWriter(firstID: lastID + 1, time: time)
        for id in progressWaiting.sorted() where mayTellProgress(run: id, at: time) {
            guard let run = sources.runs[id], let round = run.round else { continue }
            let data = sources.progress(run).view(round, sources.runs)
            writer.add("round", data, run: id, population: run.record.populationId)
        }
        for id in clientsWaiting.sorted() where mayTellClients(population: id, at: time) {
            writer.addClients(id, sources.clients.stateCounts[id] ?? [:])
        }
        return writer.rows
    }

    /// Through which event the journal is longer than it has to be by a tenth; `nil` if it is not.
    func surplus(retention: Int) -> Int? {
        let oldest = lastID - retention
        return oldest - firstID >= retention / 10 ? oldest : nil
    }

    /// Notes that old events are removed.
    mutating func noteRemoved(through id: Int) { firstID = id + 1 }

    /// Hands stored events to those who listen and still may.
    mutating func tell(_ rows: [EventRow], unless counts: (_ tokenHash: String) -> Bool) {
        guard let last = rows.last else { return }
        lastID = last.id
        endStreams(unless: counts)
        for row in rows { publish(.event(row)) }
    }

    /// Shows listeners that the stream lives, if it has been silent for long.
    mutating func keepAlive(at time: Date) {
        guard !(0..<Self.keepAliveInterval).contains(time.timeIntervalSince(lastKeepAlive)) else { return }
        lastKeepAlive = time
        publish(.keepAlive)
    }

    /// Adds a listener.
    ///
    /// - Parameters:
    ///   - tokenHash: The token's that opens the stream; `nil` on a server without tokens.
    ///   - limit: Streams open at once; a token has at most a quarter of them, so that others' dashboards find a place.
    ///   - queueLimit: Events that the listener may lag behind.
    ///   - onEnd: Is called when the stream has ended.
    /// - Returns: What has been stored, and what comes.
    /// - Throws: ``CoordinationError`` with code `too_many_listeners`.
    mutating func subscribe(
        tokenHash: String?,
        limit: Int,
        queueLimit: Int,
        onEnd: @escaping @Sendable (_ id: Int) -> Void
    ) throws(CoordinationError) -> EventSubscription {
        guard subscribers.count < limit else {
            throw CoordinationError(
                .unavailable,
                "too_many_listeners",
                "\(limit) streams of events are open already; close one or poll"
            )
        }
        let share = max(2, limit / 4)
        guard tokenHash == nil || subscribers.values.count(where: { $0.tokenHash == tokenHash }) < share else {
            throw CoordinationError(
                .unavailable,
                "too_many_listeners",
                "this token has \(share) streams of events open, a quarter of what limits.event_streams allows; close one or poll"
            )
        }
        let (stream, continuation) = AsyncStream.makeStream(
            of: EventSignal.self,
            bufferingPolicy: .bufferingOldest(queueLimit)
        )
        let id = nextSubscriber
        nextSubscriber += 1
        subscribers[id] = .init(stream: continuation, tokenHash: tokenHash)
        continuation.onTermination = { _ in onEnd(id) }
        return EventSubscription(headID: lastID, firstID: firstID, live: stream)
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

    mutating func addClients(_ population: String, _ counts: [ClientStanding: Int]) {
        let data = ClientsEventData(population: population, clients: counts.shown)
        add("clients", data, run: nil, population: population)
    }
}
