import Foundation
package import WireFormat

/// What people watch: the overview with its problems, events and metrics.
extension Coordinator {
    // MARK: - Overview

    /// Runs that the overview shows at most.
    static let overviewRunLimit = 200

    /// Of so many runs it is said that they failed; their list has the others.
    private static let failureLimit = 20

    /// The state of the whole server in one answer: no larger however much there is, and gathered in parts, between which
    /// others have their turn.
    package nonisolated func overview(role: StaffRole) async throws -> OverviewView {
        let shown = try await perform { $0.runs.shownInOverview(limit: Self.overviewRunLimit) }
        var runs: [RunSummary] = []
        for start in stride(from: 0, to: shown.count, by: Self.partCount) {
            runs += await summaries(shown[start..<min(shown.count, start + Self.partCount)])
        }
        let recent = (try? store.recentHistory(limit: 40)) ?? []
        return try await overview(role: role, runs: runs, recent: recent)
    }

    private func summaries(_ ids: ArraySlice<String>) -> [RunSummary] {
        ids.compactMap { runs[$0].map { progress(of: $0).summary } }
    }

    private func overview(role: StaffRole, runs: [RunSummary], recent: [HistoryRow]) throws -> OverviewView {
        let populations = try listPopulations(limit: Self.overviewRunLimit).items
        return OverviewView(
            role: role,
            version: ProductVersion.current,
            startedAt: startedAt.wireTimestamp,
            now: now.wireTimestamp,
            disk: DiskView(directory: configuration.dataDirectory),
            clients: countClients(),
            populations: populations,
            runs: runs,
            moreRuns: max(0, self.runs.order.count - runs.count),
            problems: problems(populations: populations),
            recent: recent.map {
                EventView(
                    run: $0.runId,
                    runName: self.runs[$0.runId]?.record.name,
                    round: $0.round,
                    attempt: $0.attempt,
                    at: $0.at.wireTimestamp,
                    state: $0.state,
                    cause: $0.cause
                )
            }
        )
    }

    /// How many clients are in which state.
    func countClients() -> ClientCounts {
        let secret = runs.secretWork
        return clients.counts(working: runs.liveCount - secret.count, isSecret: secret.isThere, at: now)
    }

    /// What needs somebody's attention, the worst first.
    private func problems(populations: [PopulationView]) -> [ProblemView] {
        var found = budgets.trust.problems(at: now)
        if let problem = DiskView(directory: configuration.dataDirectory)?.problem { found.append(problem) }
        found += storage.problems + modelFiles.problems(runs)
        for run in (runs.failed.suffix(Self.failureLimit) + runs.open).compactMap({ runs[$0] }) {
            found += run.problems(
                publication.stalls[run.record.id],
                modelByteLimit: configuration.modelByteLimit,
                clientRequestsPerSecond: configuration.clientRequestsPerSecond,
                at: now
            )
        }
        found += protection.problems(runs, at: now)
        for population in populations { found += population.budgetProblems(runs) }
        found += clients.problems
        let order = ["error", "warning", "notice"]
        return found.enumerated().sorted {
            let (left, right) = (order.firstIndex(of: $0.1.severity) ?? 3, order.firstIndex(of: $1.1.severity) ?? 3)
            return (left, $0.0) < (right, $1.0)
        }.map(\.1)
    }

    // MARK: - Events

    /// Joins the stream of events; its queue holds `configuration.eventQueueLimit` of them.
    ///
    /// The place is free again when the stream has ended, or nobody holds the subscription any more. The stream ends when the
    /// token that opened it is revoked, rotated or expires.
    ///
    /// - Parameter token: The caller's; `nil` on a server without tokens.
    /// - Returns: What has been stored, and what comes.
    /// - Throws: ``CoordinationError`` with code `too_many_listeners`.
    package func subscribe(token: String? = nil) throws -> EventSubscription {
        try journal.subscribe(
            tokenHash: token.map { Secrets.hash(ofToken: $0) },
            limit: configuration.eventListenerLimit,
            queueLimit: configuration.eventQueueLimit,
            onEnd: { [weak self] id in Task { await self?.unsubscribe(id) } }
        )
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

    /// What events tell.
    var eventSources: EventSources { EventSources(runs: runs, clients: clients) { self.progress(of: $0) } }

    /// Writes what was gathered, drops what is too old, and shows listeners that the stream lives; called by the tick.
    func publishPending() throws {
        endStreamsWithoutToken()
        let rows = journal.gatheredRows(eventSources, at: now)
        let surplus = journal.surplus(retention: configuration.eventRetention)
        let changes = rows.map(StoreChange.event) + (surplus.map { [.deleteEvents(through: $0)] } ?? [])
        if !changes.isEmpty {
            try write(changes)
            if let surplus { journal.noteRemoved(through: surplus) }
            journal.tell(rows, unless: mayListen)
        }
        journal.keepAlive(at: now)
    }

    /// Ends the streams of listeners that have lost the right to listen.
    func endStreamsWithoutToken() { journal.endStreams(unless: mayListen) }

    /// Whether the token that opened a stream still counts.
    func mayListen(tokenHash: String) -> Bool { tokens.valid(tokenHash, at: now) != nil }

    // MARK: - Metrics

    /// Measures what is a state and not an event, and gives everything as Prometheus text.
    ///
    /// Files are looked at, and the text is made, beside the coordinator.
    package nonisolated func metricsExposition() async -> String {
        await measureState()
        metrics.measureStorage(configuration.dataDirectory)
        ProcessMeasurements.measure(into: metrics)
        return metrics.exposition()
    }

    private func measureState() {
        let totals = populations.all.map { ($0, $0.budgetEpsilon == nil ? nil : budgets.totals(of: $0)) }
        metrics.measure(totals, clients, runs)
        metrics.set("martlet_ledger_alarm", budgets.trust.alarm == nil ? 0 : 1)
        metrics.set("martlet_ledger_record_behind", budgets.trust.trouble == nil ? 0 : 1)
        metrics.set("martlet_rounds_stalled", Double(publication.stalls.count))
        metrics.set("martlet_long_polls", Double(placement.waiters.count))
    }
}
