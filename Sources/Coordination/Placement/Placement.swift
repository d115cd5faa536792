import Foundation
import WireFormat

/// Whose turn it is: which run a client is offered first, who waits for work, and how far the runs have looked for clients.
struct Placement {
    /// The long polls that wait.
    var waiters = WaitingClients()
    /// How often a run was offered first, so that runs alike take turns.
    private var turnCount = 0
    /// Answers about many clients, by run, as they were counted last.
    private var tallies: [String: Tally] = [:]
    /// Open attempts at which nobody is at work, by run.
    private var searches: [String: NewcomerSearch] = [:]
    /// The attempt of each run whose waiting clients have been looked at for a drawn cohort.
    private var drawsTold: [String: [Int]] = [:]

    /// So many clients are looked at in one go; if there are more, they are looked at in parts, between which others have their turn.
    static let countedAtOnce = 1000
    /// Of so many clients' profiles the parsing is under a millisecond.
    static let countedAside = 100
    /// So many long polls are looked at in one go.
    static let lookedAtOnce = 256
    /// Seconds for which a count of many clients is good.
    static let tallyLife = 60.0

    // MARK: - Order

    /// Notes that a run's offer was taken, unless how much work it hands out is secret.
    mutating func noteHandedOut(isSecret: Bool) { if !isSecret { turnCount += 1 } }

    /// The run that has the smallest share of what it wants first; those alike take turns.
    ///
    /// A run whose cost counts on a secret draw counts as one that has nothing yet: the order of runs would tell other clients how much
    /// of it is at work.
    func inFairOrder(_ candidates: [String], _ runs: RunTable) -> [String] {
        guard candidates.count > 1 else { return candidates }
        func load(_ id: String) -> Double {
            guard let run = runs[id], let round = run.round else { return 1 }
            guard !run.specification.privacy.hasSecretDraw else { return 0 }
            return Double(run.atWork.count + round.accepted) / Double(max(1, run.terms(of: round).wanted))
        }
        return candidates.indices.map { candidates[(turnCount + $0) % candidates.count] }.enumerated()
            .map { (offset: $0.offset, id: $0.element, load: load($0.element)) }
            .sorted { ($0.load, $0.offset) < ($1.load, $1.offset) }.map(\.id)
    }

    /// The answer to a client that no run has work for.
    ///
    /// - Parameters:
    ///   - refusals: What each run said, in the order in which they were asked.
    ///   - runs: The runs.
    ///   - seen: How many clients of the population were there lately.
    ///   - time: The time.
    /// - Returns: The reason that may pass first, and when to come again.
    static func answer(
        to refusals: [(refusal: Refusal, run: String)],
        _ runs: RunTable,
        seen: Int,
        at time: Date
    ) -> CheckInResponse {
        guard let first = Refusal.allCases.lazy.compactMap({ kind in refusals.first { $0.refusal == kind } }).first
        else {
            return .away(Refusal.noSlot.rawValue, Refusal.noSlot.retryWindow(run: nil, seen: seen, at: time))
        }
        // Every run has had this client as often as it may: it need not come again.
        guard first.refusal != .cap else { return CheckInResponse(assignment: nil, reason: first.refusal.rawValue) }
        return .away(first.refusal.rawValue, first.refusal.retryWindow(run: runs[first.run], seen: seen, at: time))
    }

    // MARK: - Counts

    /// What is known of a count of many clients, and whether it has to be counted again.
    ///
    /// - Parameters:
    ///   - id: The run.
    ///   - attempt: Its open attempt; a count is good for no other one.
    ///   - time: The time.
    /// - Returns: The last count, `nil` before the first one has ended; and whether a new one begins, which
    ///   ``endTally(of:_:count:at:)`` ends.
    mutating func beginTally(of id: String, _ attempt: [Int], at time: Date) -> (count: Int?, begins: Bool) {
        let known = tallies[id].flatMap { $0.attempt == attempt ? $0 : nil }
        if let known, known.isCounting || (0..<Self.tallyLife).contains(time.timeIntervalSince(known.at)) {
            return (known.count, false)
        }
        tallies[id] = Tally(attempt: attempt, count: known?.count, at: time, isCounting: true)
        return (known?.count, true)
    }

    /// Takes what a count has come to.
    mutating func endTally(of id: String, _ attempt: [Int], count: Int, at time: Date) {
        guard tallies[id]?.attempt == attempt else { return }
        tallies[id] = Tally(attempt: attempt, count: count, at: time, isCounting: false)
    }

    // MARK: - Newcomers

    /// Whether nobody is left for an attempt at which nobody is at work, so that it ends before its deadline.
    ///
    /// Only if the population has as many clients as the goal: a smaller one waits for others to enroll. Not if a draw chose the cohort,
    /// which ends by itself or must not end early; nor in mode `buffered`, in which updates stay good; nor if the requirements ask for
    /// what a client says only when it comes; nor if the next attempt could be joined by nobody either, and would only be one attempt
    /// more while somebody may enroll.
    mutating func isNobodyLeft(for run: RunState, _ clients: ClientTable) -> Bool {
        guard let round = run.round, round.phase.isCollecting else { return false }
        let terms = run.terms(of: round)
        let isChoosing = terms.policy == .uniform && round.phase == .selecting
        guard !terms.policy.isDrawn, !terms.isSecret, !terms.isBuffered, !isChoosing, run.atWork.isEmpty,
            run.freeSlots > 0, clients.presentCount(population: run.record.populationId) >= terms.goal,
            run.requirements?.usesExampleCount != true
        else { return false }
        if mayAnybodyJoin(run, round, clients) { return false }
        return round.accepted >= terms.minimum || mayAnybodyReturn(run)
    }

    /// Whether a client that had its turns in the open attempt may take part in the next one.
    ///
    /// Looked at again when the attempt has more members: they have one participation more, and nobody else has.
    private mutating func mayAnybodyReturn(_ run: RunState) -> Bool {
        let count = run.members.everybody.count
        if let known = searches[run.record.id]?.mayReturn, known.memberCount == count { return known.answer }
        let answer = run.hasOneWhoMayReturn
        searches[run.record.id]?.mayReturn = (count, answer)
        return answer
    }

    /// Looks on where the last look ended: all looks at one attempt together see each client once, and those again that change.
    ///
    /// - Returns: `false` when every client was looked at and none may join.
    private mutating func mayAnybodyJoin(_ run: RunState, _ round: RoundRecord, _ clients: ClientTable) -> Bool {
        let (id, attempt) = (run.record.id, [round.number, round.attempt])
        var search = searches[id].flatMap { $0.attempt == attempt ? $0 : nil } ?? NewcomerSearch(attempt: attempt)
        defer { searches[id] = search }
        for client in search.changed.prefix(Self.countedAtOnce) {
            if let record = clients[client], run.mayJoin(record, round, clients) { return true }
            search.changed.remove(client)
        }
        for record in clients.part(from: search.place, limit: Self.countedAtOnce) {
            if run.mayJoin(record, round, clients) { return true }
            search.place += 1
        }
        return search.place < clients.count || !search.changed.isEmpty
    }

    /// Notes that a client's record has changed: every search looks at it again.
    mutating func noteChanged(client: String) {
        for run in searches.keys { searches[run]?.changed.insert(client) }
    }

    /// Notes that a client's part in a run has changed.
    mutating func noteChanged(client: String, run: String) { searches[run]?.changed.insert(client) }

    // MARK: - Waking

    /// Whether those who wait are told of an attempt's draw now; once an attempt, since a client that comes later is told when it comes.
    mutating func beginTelling(run id: String, _ round: RoundRecord) -> Bool {
        let attempt = [round.number, round.attempt]
        guard drawsTold[id] != attempt else { return false }
        drawsTold[id] = attempt
        return true
    }

    /// Looks at some who wait in a population, those first who have waited longest, until the places are taken.
    ///
    /// - Parameters:
    ///   - population: The population.
    ///   - places: Runs with free places, and how many each has.
    ///   - clients: Where the clients are known.
    /// - Returns: The polls that there is work for; the clients that a run chooses among; and whether nobody is left to look at.
    mutating func look(
        population: String,
        for places: [(admission: Admission, count: Int)],
        _ clients: ClientTable
    ) -> (woken: [Int], offered: [(client: String, run: String)], isFinished: Bool) {
        var open = places
        var (woken, offered): ([Int], [(client: String, run: String)]) = ([], [])
        let isFinished = waiters.inOrder(population: population, limit: Self.lookedAtOnce) { id, name in
            guard let client = clients[name] else { return true }
            for index in open.indices where open[index].count > 0 {
                let admission = open[index].admission
                let refusal = admission.refusal(of: client, clients)
                if refusal == .choosing {
                    offered.append((name, admission.run.record.id))
                } else if refusal == nil {
                    open[index].count -= 1
                    woken.append(id)
                    break
                }
            }
            return open.contains { $0.count > 0 }
        }
        return (woken, offered, isFinished)
    }

    /// Takes the poll out of those that wait, and lets it look for work.
    mutating func wake(_ id: Int) { waiters.remove(id)?.resume(returning: true) }

    /// Wakes the poll of one client.
    mutating func wake(client: String) {
        for id in waiters.ids(ofClient: client) { wake(id) }
    }

    /// Wakes every poll.
    mutating func wakeAll() {
        for continuation in waiters.removeAll() { continuation.resume(returning: true) }
    }

    // MARK: - Runs

    /// Takes a run's new state: who waits may have work now, and of a run that is over nothing is counted.
    mutating func noteState(of run: RunState) {
        drawsTold[run.record.id] = nil
        if run.isOver { tallies[run.record.id] = nil }
    }

    /// Forgets how far an attempt that is over has looked for clients.
    mutating func endAttempt(run id: String) { searches[id] = nil }

    /// Forgets what was counted of runs before the store is read again; who waits goes on waiting.
    mutating func forgetRuns() {
        tallies = [:]
        drawsTold = [:]
        searches = [:]
    }
}

/// How far a run has looked for a client that may still join its open attempt.
private struct NewcomerSearch: Sendable {
    /// Round and attempt.
    let attempt: [Int]
    /// Clients before this place in the order of registration could not join when they were looked at.
    var place = 0
    /// Clients that have changed since: each is looked at again.
    var changed: Set<String> = []
    /// Whether one of so many members may take part in the next attempt, when that was last looked at.
    var mayReturn: (memberCount: Int, answer: Bool)?
}

/// An answer about many clients.
private struct Tally: Sendable {
    /// The attempt that it is about.
    var attempt: [Int]
    /// `nil` before the first count has ended.
    var count: Int?
    var at: Date
    var isCounting: Bool
}

extension RunState {
    /// Whether one of those who were given work in the open attempt may take part in the next one.
    fileprivate var hasOneWhoMayReturn: Bool {
        let cohort = specification.cohort
        guard cohort.minSeparationRounds == 0 else { return false }
        guard cohort.maxParticipations > 0 else { return !members.everybody.isEmpty }
        return members.everybody.contains { participations[$0, default: 0] < cohort.maxParticipations }
    }
}

extension Refusal {
    /// When a client that a run has no work for should come again.
    ///
    /// - Parameters:
    ///   - run: The run; `nil` if the population has none with an open round.
    ///   - seen: How many clients of the population were there lately.
    ///   - time: The time.
    /// - Returns: The window.
    func retryWindow(run: RunState?, seen: Int, at time: Date) -> CheckInResponse.RetryWindow {
        guard let run, let round = run.round else {
            return PaceSteering.window(secondsUntilWork: 5, population: seen, wanted: 0, jitter: 25)
        }
        let seconds: Double
        switch self {
        case .choosing: seconds = round.deadline.timeIntervalSince(time)
        case .backoff: seconds = run.nextOpening(now: time).timeIntervalSince(time)
        case .requirements, .version: seconds = 60
        case .cap, .separation, .noSlot: seconds = 1
        }
        return PaceSteering.window(
            secondsUntilWork: seconds,
            population: seen,
            wanted: run.terms(of: round).wanted,
            jitter: self == .choosing ? 1 : 4
        )
    }
}

extension CheckInResponse {
    /// No work, and when to come again.
    static func away(_ reason: String, _ window: RetryWindow) -> CheckInResponse {
        CheckInResponse(assignment: nil, reason: reason, retryWindow: window)
    }
}
