import Foundation
import WireFormat

/// Every run with its place in the lists by state, and the assignments of the attempts that are open.
///
/// A question that a request asks costs no walk over all runs. A run is changed in its place: while somebody holds a copy of it, a
/// change copies its lists of clients too.
struct RunTable: Sendable {
    private var states: [String: RunState] = [:]
    /// All runs, oldest first.
    private(set) var order: [String] = []
    /// Runs that have not ended, oldest first, so that they share a population fairly by turn.
    private(set) var open: [String] = []
    private var openByPopulation: [String: [String]] = [:]
    /// Runs that failed, in the order in which they did.
    private(set) var failed: [String] = []
    /// How many runs are in which state.
    private(set) var stateCounts: [RunPhase: Int] = [:]
    /// The state of each run that the lists above go by.
    private var listedStates: [String: RunPhase] = [:]
    /// Versions of each run that others build on, and the clients that have trained one of these.
    private var basesInUse: [String: Set<Int>] = [:]
    private var baseReaders: [String: Set<String>] = [:]
    /// Runs of each population whose draws are no secret, oldest first.
    private var openlyDrawn: [String: [String]] = [:]
    /// The assignments of open attempts by their ids; in mode `buffered` also live ones of earlier rounds.
    private(set) var assignments: [String: AssignmentRecord] = [:]
    /// The assignment that each client is at.
    private(set) var liveByClient: [String: String] = [:]
    /// Squared L2 norms of accepted updates by assignment, if their run bounds norms.
    ///
    /// Admission measures them, no transaction stores them, and the aggregation measures again what a restart has lost.
    private(set) var squaredNorms: [String: Double] = [:]
    /// Requests that bring bytes of an update now, by assignment.
    var openUploads: [String: Int] = [:]

    /// A run; it is changed in its place.
    subscript(id: String) -> RunState? {
        get {
            WorkCount.note()
            return states[id]
        }
        _modify {
            WorkCount.note()
            yield &states[id]
        }
    }

    /// A run that has to be there.
    ///
    /// - Throws: ``CoordinationError`` `not_found`.
    func run(_ id: String) throws(CoordinationError) -> RunState {
        guard let state = states[id] else { throw CoordinationError(.notFound, "not_found", "no run '\(id)'") }
        return state
    }

    /// Runs of a population that have not ended, oldest first.
    func open(population: String) -> [String] { openByPopulation[population] ?? [] }

    /// Whether a run builds on a version of another one.
    func isBase(_ id: String, version: Int) -> Bool { basesInUse[id]?.contains(version) ?? false }

    /// Whether a client was given work in a run that builds on this one.
    func hasTrainedOn(_ id: String, client: String) -> Bool { baseReaders[id]?.contains(client) ?? false }

    /// Runs of a population whose draws are no secret, oldest first.
    func openlyDrawn(population: String) -> [String] { openlyDrawn[population] ?? [] }

    /// All runs with their models.
    var versions: [[ModelVersionRecord]] { states.values.map { Array($0.versions) } }

    /// How many clients are at work.
    var liveCount: Int { liveByClient.count }

    // MARK: - Runs

    /// Adds a run that is stored.
    mutating func add(_ run: RunState) {
        states[run.record.id] = run
        enlist(run.record.id)
        _ = noteState(of: run.record.id)
    }

    /// Adds a run whose transaction comes next: what belongs to it finds it, and no list has it before ``enlist(_:)``.
    mutating func prepare(_ run: RunState) { states[run.record.id] = run }

    /// Removes a run whose transaction failed.
    mutating func withdraw(_ id: String) { states[id] = nil }

    /// Gives a run its place in the order, and among those that build on its base.
    mutating func enlist(_ id: String) {
        order.append(id)
        guard let run = states[id] else { return }
        if let base = run.specification.model.base, let version = base.version {
            basesInUse[base.run, default: []].insert(version)
        }
        if !run.specification.privacy.hasSecretDraw { openlyDrawn[run.record.populationId, default: []].append(id) }
    }

    /// Notes that a client was given work to train in a run.
    private mutating func noteTraining(of client: String, run id: String) {
        if let base = states[id]?.specification.model.base { baseReaders[base.run, default: []].insert(client) }
    }

    /// Takes a run's new record.
    ///
    /// - Returns: Whether its state is another one.
    mutating func set(_ record: RunRecord) -> Bool {
        states[record.id]?.record = record
        return noteState(of: record.id)
    }

    /// Keeps the lists of runs by what they are doing.
    private mutating func noteState(of id: String) -> Bool {
        guard let run = states[id] else { return false }
        let before = listedStates.updateValue(run.record.state, forKey: id)
        guard before != run.record.state else { return false }
        if let before { stateCounts[before, default: 0] -= 1 }
        stateCounts[run.record.state, default: 0] += 1
        if run.record.state == .failed { failed.append(id) }
        let population = run.record.populationId
        if run.isOver {
            open.removeAll { $0 == id }
            openByPopulation[population]?.removeAll { $0 == id }
        } else if before == nil {
            open.append(id)
            openByPopulation[population, default: []].append(id)
        }
        return true
    }

    /// Forgets every run before the store is read again; what uploads in progress have told, which no transaction stores, stays.
    mutating func removeAll() {
        let (norms, uploads) = (squaredNorms, openUploads)
        self = RunTable()
        (squaredNorms, openUploads) = (norms, uploads)
    }

    /// Takes what is stored of runs, rounds, versions and assignments.
    ///
    /// - Throws: What a stored specification cannot be read for.
    mutating func load(_ state: StoredState) throws {
        for record in state.runs.sorted(by: { ($0.createdAt, $0.id) < ($1.createdAt, $1.id) }) {
            add(try RunState(record: record))
        }
        for record in state.rounds { states[record.runId]?.setRound(record) }
        for record in state.protectedSessions { states[record.runId]?.setSession(record) }
        for record in state.modelVersions { states[record.runId]?.versions.append(record) }
        for record in state.modelMetrics { states[record.runId]?.noteMetrics(record) }
        for row in state.phaseChanges { states[row.runId]?.notePhase(row) }
        for record in state.participations {
            states[record.runId]?.setParticipation(record)
            if record.trainings > 0 { noteTraining(of: record.clientId, run: record.runId) }
        }
        for row in state.refusals {
            states[row.runId]?.refusals[row.round, default: [:]][row.code, default: 0] += row.count
        }
        // In the order of their turns: a client's last one says whether it may have another.
        for record in state.assignments.sorted(by: { $0.turn < $1.turn }) where isOpen(record) { place(record) }
        for id in order { holdToReleases(run: id) }
    }

    // MARK: - Assignments

    /// Takes an assignment as it is stored from now on, and counts it.
    mutating func set(_ record: AssignmentRecord) {
        states[record.runId]?.countRefusal(record, before: assignments[record.id]?.state)
        if assignments[record.id] == nil {
            states[record.runId]?.noteParticipation(record)
            if !record.isEvaluation { noteTraining(of: record.clientId, run: record.runId) }
        }
        place(record)
    }

    /// Puts an assignment where it is looked for; what is counted of it stays as it is.
    mutating func place(_ record: AssignmentRecord) {
        let before = assignments.updateValue(record, forKey: record.id)
        if before == nil { states[record.runId]?.assignmentIDs.append(record.id) }
        states[record.runId]?.liveCounts.note(before, record)
        states[record.runId]?.noteMember(record)
        states[record.runId]?.noteState(of: record)
        if record.state.isLive {
            liveByClient[record.clientId] = record.id
        } else if liveByClient[record.clientId] == record.id {
            liveByClient[record.clientId] = nil
        }
    }

    /// Takes what no transaction stores of an assignment, such as its lease, and looks at it again when that is over.
    mutating func keep(_ record: AssignmentRecord) {
        if let before = assignments.updateValue(record, forKey: record.id) {
            states[record.runId]?.liveCounts.note(before, record)
        }
        states[record.runId]?.noteExpiry(of: record)
    }

    /// Keeps what admission measured of an update.
    mutating func noteSquaredNorm(_ value: Double?, of assignment: String) { squaredNorms[assignment] = value }

    /// Forgets norms of assignments that are not known any more.
    mutating func dropUnknownNorms() { squaredNorms = squaredNorms.filter { assignments[$0.key] != nil } }

    /// The updates that go into the open round's result.
    func counted(_ run: RunState) -> [AssignmentRecord] {
        run.assignmentIDs.compactMap { assignments[$0] }.filter { $0.state == .accepted }
    }

    /// How many of the clients at work are in which state.
    func liveStates(of run: RunState) -> [String: Int] {
        run.liveCounts.shown(measuring: run.round?.isEvaluation == true)
    }

    /// Whether an assignment still matters: it is of the open attempt, or in mode `buffered` at work or waiting in the buffer.
    func isOpen(_ record: AssignmentRecord) -> Bool {
        guard let run = states[record.runId], let round = run.round, !round.phase.isFinal else {
            return record.state.isLive && states[record.runId].map { !$0.isOver } ?? false
        }
        if record.round == round.number && record.attempt == round.attempt { return true }
        return run.isBuffered && (record.state.isLive || record.counts(in: round))
    }

    /// Forgets the assignments of an attempt that is over; those that may still deliver stay.
    ///
    /// - Returns: The ids of those that are gone.
    mutating func endAttempt(run id: String) -> [String] {
        guard let run = states[id] else { return [] }
        let live = run.live
        let ended = run.assignmentIDs.filter { !live.contains($0) }
        for assignment in ended {
            assignments[assignment] = nil
            squaredNorms[assignment] = nil
        }
        states[id]?.assignmentIDs = run.assignmentIDs.filter { live.contains($0) }
        states[id]?.members = AttemptMembers()
        return ended
    }

    /// Ends what is live; in mode `buffered` an update may be delivered to the next round, as long as there is one.
    ///
    /// - Parameters:
    ///   - run: The run as it is after the change that ends them.
    ///   - code: Why they end.
    ///   - time: When.
    /// - Returns: Changes for the transaction of that change.
    func superseding(_ run: RunState, code: String, at time: Date) -> [StoreChange] {
        let ended = run.isBuffered && !run.isOver ? run.measuring : run.live
        return ended.sorted().flatMap { id -> [StoreChange] in
            guard var record = assignments[id],
                let effects = try? record.apply(.superseded(code: code), at: time)
            else { return [] }
            return record.changes(effects, at: time)
        }
    }

    /// With privacy mode `local` what a client has begun to send before a restart binds it after that, also while its work goes on.
    mutating func holdToReleases(run id: String) {
        guard let run = states[id], run.specification.privacy.mode == .local else { return }
        for record in run.assignmentIDs.compactMap({ assignments[$0] }) where run.isOfOpenAttempt(record) {
            guard let note = record.releaseSha256 else { continue }
            let digest = note.prefix { $0 != "?" }
            if !digest.isEmpty { _ = states[id]?.members.noteRelease(String(digest), of: record.clientId) }
            if note.hasSuffix("?") { states[id]?.members.bar(record.clientId) }
        }
    }
}

extension AssignmentRecord {
    /// An assignment's change and its history, for one transaction.
    func changes(_ effects: [AssignmentEffect], at time: Date) -> [StoreChange] {
        var changes: [StoreChange] = [.assignment(self)]
        for case .history(let state, let cause) in effects {
            changes.append(
                .history(
                    HistoryRow(
                        runId: runId,
                        round: round,
                        attempt: attempt,
                        at: time,
                        state: state.rawValue,
                        cause: cause,
                        assignmentId: id
                    )
                )
            )
        }
        return changes
    }
}

extension StoreChange {
    /// A row that says what became of a run, or of an attempt at one of its rounds.
    static func history(
        _ run: String,
        round: Int = 0,
        attempt: Int = 0,
        at time: Date,
        state: some ClosedWord,
        cause: String
    ) -> StoreChange {
        .history(
            HistoryRow(runId: run, round: round, attempt: attempt, at: time, state: state.rawValue, cause: cause)
        )
    }
}
