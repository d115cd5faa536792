import Foundation
import StrictJSON
import Tensors
import WireFormat

/// One run in memory: its record, its specification, its open round and its published versions.
struct RunState: Sendable {
    var record: RunRecord
    let specification: RunSpecification
    /// The model as assignments describe it: a long tokeniser is a reference.
    let assignedModel: RunSpecification.Model
    /// The tokeniser's JSON and its hash, where it is long.
    let longTokenizer: (document: Data, sha256: String)?
    let requirements: EligibilityExpression?
    let minimumVersion: DottedVersion?
    /// The latest attempt of the latest round.
    var round: RoundRecord?
    /// Every attempt, oldest first.
    private(set) var rounds: CountedArray<RoundRecord> = []
    /// The places in ``rounds`` of attempts to train, and of those to evaluate.
    private(set) var trainingPlaces: [Int] = []
    private(set) var evaluationPlaces: [Int] = []
    /// Of each evaluation's last attempt its place in ``evaluationPlaces``.
    private var lastEvaluation: [Int: Int] = [:]
    /// The places of attempts that published a version.
    private(set) var committedPlaces: [Int] = []
    /// The accepted updates of each of these attempts and all before it.
    private var acceptedSums: [Int] = []
    /// What the population had spent with the last attempt that was committed.
    private(set) var lastEpsilon: Double?
    /// Version `n` is what round `n` published; version 0 is the initial model.
    var versions: CountedArray<ModelVersionRecord> = []
    private let participation = ParticipationTable()
    /// When live assignments are to be looked at again.
    let expiries = ExpiryQueue()
    /// The assignments of the open attempt; in mode `buffered` also live ones of earlier rounds.
    var assignmentIDs: [String] = []
    /// Those of them that may still deliver an update.
    var training: Set<String> = []
    /// Those of them that may still deliver measurements.
    var measuring: Set<String> = []
    /// How many of all these are in which state.
    var liveCounts = LiveCounts()
    /// Who has had a part in the open attempt.
    var members = AttemptMembers()
    /// Who checked in while a `uniform` round selects.
    var reservoir: Reservoir?
    /// Bounds between the tiers of speed, in seconds an assignment, slowest tier first.
    var tierBounds: [Double] = []
    var layout: ParameterLayout?
    /// The most bytes that an update's tensors have, once that is known.
    var updateByteCount: Int?
    /// The size that every client's update has with privacy, once that is known.
    var plannedByteCount: Int?
    /// What was measured of each version, by source and name.
    private(set) var metrics: [Int: [String: [String: Double]]] = [:]
    /// The best value of each measurement that says what is better, as they come.
    private var bestValues: [BestKey: BestView] = [:]
    /// The latest version of which something was measured.
    private(set) var lastMeasured: Int?
    /// When each attempt began to report and to aggregate, by `number/attempt` and phase.
    var phaseStarts: [String: [String: Date]] = [:]
    /// Why updates of each round were refused and clients failed, by code.
    var refusals: [Int: [String: Int]] = [:]
    /// Sessions of a helper that are open, or whose end it is still to be told; with protection only.
    private(set) var sessions: [ProtectedSessionRecord] = []
    /// Clients that the run's rules admit, when that was last counted.
    var eligible: (count: Int, at: Date)?

    init(record: RunRecord) throws {
        self.record = record
        // Read and not decoded: fields that are younger than the run have their defaults.
        specification = try RunSpecification.readStored(JSONValue.parse(Array(record.specification.utf8)))
        requirements = try specification.cohort.requirements.map { text in try EligibilityExpression(text) }
        minimumVersion = specification.cohort.minimumClientVersion.flatMap { DottedVersion($0) }
        longTokenizer = specification.model.longTokenizer.map { ($0, Secrets.sha256($0)) }
        assignedModel =
            longTokenizer.map { [specification] in
                specification.model.referringToTokenizer(
                    sha256: $0.sha256,
                    url: Endpoints.tokenizer(RunReference(record.id)).path
                )
            } ?? specification.model
    }

    /// The helper's session of an attempt.
    func session(of round: RoundRecord) -> ProtectedSessionRecord? { sessions.first { $0.isOf(round) } }

    /// Takes a session as it is stored.
    mutating func setSession(_ record: ProtectedSessionRecord) {
        sessions.removeAll { ($0.round, $0.attempt) == (record.round, record.attempt) }
        if record.state != .ended { sessions.append(record) }
    }

    /// How often each client was given work for training in this run, and in which round it was last.
    var participations: [String: Int] { participation.trainings }
    var lastRounds: [String: Int] { participation.lastRounds }
    /// How many clients were given work so often.
    var participationHistogram: [Int: Int] { participation.histogram }
    /// How often each client was asked to evaluate.
    var evaluations: [String: Int] { participation.evaluations }

    /// Takes what is stored of a client.
    func setParticipation(_ record: ParticipationRecord) { participation.set(record) }

    /// Counts one more assignment of its client.
    func noteParticipation(_ record: AssignmentRecord) { participation.note(record) }

    mutating func setRound(_ record: RoundRecord) {
        defer { round = rounds.last }
        if let last = rounds.last, last.number >= record.number,
            let index = rounds.lastIndex(where: { $0.number == record.number && $0.attempt == record.attempt })
        {
            if record.phase == .committed, rounds[index].phase != .committed { noteCommitted(record, at: index) }
            rounds[index] = record
            return
        }
        if record.phase == .committed { noteCommitted(record, at: rounds.count) }
        if record.isEvaluation {
            lastEvaluation[record.number] = evaluationPlaces.count
            evaluationPlaces.append(rounds.count)
        } else {
            trainingPlaces.append(rounds.count)
        }
        rounds.append(record)
    }

    /// The latest attempt at a round; a negative number is that of an evaluation.
    func lastAttempt(ofRound number: Int) -> RoundRecord? {
        guard number < 0 else {
            return number == .max ? nil : trainingPlaces(in: number..<number + 1).last.map { rounds[$0] }
        }
        return lastEvaluation[number].map { rounds[evaluationPlaces[$0]] }
    }

    private mutating func noteCommitted(_ record: RoundRecord, at place: Int) {
        lastEpsilon = record.epsilon
        guard !record.isEvaluation else { return }
        committedPlaces.append(place)
        acceptedSums.append((acceptedSums.last ?? 0) + record.accepted)
    }

    /// How many updates the versions up to one are made of.
    func acceptedCount(through version: Int) -> Int {
        var (low, high) = (0, committedPlaces.count)
        while low < high {
            let middle = (low + high) / 2
            if rounds[committedPlaces[middle]].number <= version { low = middle + 1 } else { high = middle }
        }
        return low > 0 ? acceptedSums[low - 1] : 0
    }

    /// A published version by its number, which is its place.
    func version(numbered number: Int) -> ModelVersionRecord? {
        versions.indices.contains(number) ? versions[number] : nil
    }

    /// The places in ``rounds`` of attempts at the training rounds with these numbers.
    ///
    /// Numbers never fall from one attempt to the next, so both ends are found by halving.
    func trainingPlaces(in numbers: Range<Int>) -> ArraySlice<Int> {
        func place(of number: Int) -> Int {
            var (low, high) = (0, trainingPlaces.count)
            while low < high {
                let middle = (low + high) / 2
                if rounds[trainingPlaces[middle]].number < number { low = middle + 1 } else { high = middle }
            }
            return low
        }
        let start = place(of: numbers.lowerBound)
        return trainingPlaces[start..<max(start, place(of: numbers.upperBound))]
    }

    /// Adds to the open attempt what was sent of the version that it starts from or measures.
    mutating func countDownload(version: Int, byteCount: Int) {
        guard var open = round, !open.phase.isFinal else { return }
        let isMeant = open.isEvaluation ? version == -open.number : version < open.number
        guard isMeant else { return }
        open.bytesDown = (open.bytesDown ?? 0) + byteCount
        setRound(open)
    }

    /// Whether updates of older versions count, and who trains may train on while others measure.
    var isBuffered: Bool { specification.aggregation.isBuffered }

    /// Everyone who may still deliver.
    var live: Set<String> { training.union(measuring) }

    /// Who may still deliver to the open round, or to one of its kind.
    var atWork: Set<String> { round?.isEvaluation == true ? measuring : training }

    /// Whether the open round counts what happens to an assignment.
    func counts(_ record: AssignmentRecord) -> Bool {
        round.map { $0.phase.isCollecting && $0.isEvaluation == record.isEvaluation } ?? false
    }

    /// Notes whether an assignment may still deliver, and until when.
    mutating func noteState(of record: AssignmentRecord) {
        noteExpiry(of: record)
        switch (record.isEvaluation, record.state.isLive) {
        case (true, true): measuring.insert(record.id)
        case (true, false): measuring.remove(record.id)
        case (false, true): training.insert(record.id)
        case (false, false): training.remove(record.id)
        }
    }

    /// Notes when an assignment is to be looked at again.
    func noteExpiry(of record: AssignmentRecord) {
        if record.state.isLive, let expiry = record.expiry { expiries.note(record.id, expiry) }
    }

    /// Notes what an assignment's state means for its client's part in the open attempt.
    mutating func noteMember(_ record: AssignmentRecord) {
        let isCurrent = isOfOpenAttempt(record)
        if isCurrent { members.noteTurn(record.turn, of: record.clientId) }
        if record.state.isLive || record.state == .accepted {
            members.settle(record.clientId)
        } else if isCurrent ? allowsAnotherTurn(after: record) : !members.hasHadTurn(record.clientId) {
            members.readmit(record.clientId)
        } else {
            members.settle(record.clientId)
        }
    }

    /// Whether an assignment is of the round attempt that is open, or was opened last.
    func isOfOpenAttempt(_ record: AssignmentRecord) -> Bool {
        round.map { ($0.number, $0.attempt) == (record.round, record.attempt) } ?? false
    }

    /// Whether the client of an assignment that ended without an accepted update may be given work of the attempt again.
    ///
    /// Not where a draw chose the cohort, whose members nobody replaces; and not with privacy mode `local` once an update was
    /// refused for its contents: the same bytes would be refused again, and others would be a second release.
    private func allowsAnotherTurn(after record: AssignmentRecord) -> Bool {
        guard let round, record.turn < AttemptMembers.turnLimit, record.code != FailureCode.notEligible.rawValue else {
            return false
        }
        let terms = terms(of: round)
        guard !terms.policy.isDrawn, !terms.isSecret else { return false }
        return !(specification.privacy.mode == .local && record.state == .rejected)
    }

    /// Seconds that a sign of life is good for; a minute where the run does not say.
    var lease: Double { specification.cohort.leaseS ?? 60 }

    /// What the round is judged by.
    func terms(of round: RoundRecord) -> RoundTerms {
        RoundTerms(specification, isEvaluation: round.isEvaluation)
    }

    /// How many more assignments the open round may hand out now.
    var freeSlots: Int {
        guard record.state == .running, let round, round.phase.isCollecting else { return 0 }
        let terms = terms(of: round)
        // Until the drawn are counted any number may come.
        if terms.policy.isDrawn { return round.drawn.map { max(0, $0 - members.settledCount) } ?? .max }
        if terms.policy == .uniform && round.phase == .selecting { return 0 }
        return max(0, terms.wanted - atWork.count - (terms.isBuffered ? 0 : round.accepted))
    }

    /// Whether an accepted update's attempt became a model version; `nil` while that is open.
    func hasCommitted(_ assignment: AssignmentRecord) -> Bool? {
        let number = assignment.countedRound ?? assignment.round
        // Only the attempts at this one round are looked at, however many there were of others.
        let place = attemptPlaces(ofRound: number).last {
            rounds[$0].attempt == assignment.countedAttempt ?? assignment.attempt
        }
        guard let own = place.map({ rounds[$0] }), own.phase.isFinal else { return nil }
        return own.phase == .committed
    }

    /// The places in ``rounds`` of all attempts at one round.
    private func attemptPlaces(ofRound number: Int) -> ArraySlice<Int> {
        guard number < 0 else { return number == .max ? [] : trainingPlaces(in: number..<number + 1) }
        guard let last = lastEvaluation[number] else { return [] }
        var first = last
        while first > 0, rounds[evaluationPlaces[first - 1]].number == number { first -= 1 }
        return evaluationPlaces[first...last]
    }

    /// Whether nothing more will happen.
    var isOver: Bool { record.state.isFinal }

    /// When the next attempt or round may open; the past when nothing holds it back, or a clock that was put back would.
    func nextOpening(now: Date) -> Date {
        guard let round, round.phase == .abandoned, let closedAt = round.closedAt, closedAt.timeIntervalSince(now) <= 1
        else { return .distantPast }
        return closedAt.addingTimeInterval(terms(of: round).backoff(afterAttempt: round.attempt))
    }

    // MARK: - Evaluation and stopping

    /// Whether the client has taken part in as many evaluations as their cost counts on.
    func hasMeasuredEnough(_ client: String) -> Bool {
        guard let limit = specification.evaluation.maxParticipations else { return false }
        return evaluations[client, default: 0] >= limit
    }

    /// The version whose evaluation is due, if one is; one that was abandoned three times is left out, and one that the
    /// privacy budget does not admit.
    var evaluationDue: Int? {
        let every = specification.evaluation.every
        guard every > 0, let version = versions.last?.version, version > 0,
            version % every == 0 || version == specification.rounds
        else { return nil }
        let attempts = attemptPlaces(ofRound: -version).map { rounds[$0] }
        let isOver = attempts.contains { $0.phase == .committed || $0.isRefusedByBudget }
        return isOver || attempts.count >= 3 ? nil : version
    }

    /// A rate of versions by the source that counts, which is evaluation rounds, or training where there are none: the latest versions
    /// first, as they are asked for.
    func latest(_ metric: String) -> some Sequence<(version: Int, value: Double)> {
        let source = specification.evaluation.every > 0 ? "federated" : "training"
        return stride(from: lastMeasured ?? -1, through: 0, by: -1).lazy.compactMap {
            version -> (version: Int, value: Double)? in
            metrics[version]?[source]?[metric].map { (version: version, value: $0) }
        }
    }

    /// The version to take: the best by the rule to stop, or by what was measured of most weight.
    var bestVersion: Int? { (specification.stop == nil ? nil : bestByRule) ?? bests.first?.version }

    /// The version with the clients' best value of the rule's metric, or of the loss.
    var bestByRule: Int? { bestValues[ruleKey]?.version }

    private var ruleKey: BestKey {
        BestKey(
            source: specification.evaluation.every > 0 ? "federated" : "training",
            name: specification.stop?.metric ?? "loss",
            prefersLarger: specification.stop?.prefersLarger ?? false
        )
    }

    /// The best version by each measurement that was taken: the operator's first, then the clients', accuracy before loss.
    var bests: [BestView] {
        ["held-out", "federated", "training"].flatMap { source in
            Self.judged.compactMap { bestValues[BestKey(source: source, name: $0.0, prefersLarger: $0.1)] }
        }
    }

    /// Notes what one source measured of a version; the best values move with it.
    mutating func setMetrics(_ values: [String: Double]?, version: Int, source: String) {
        metrics[version, default: [:]][source] = values
        lastMeasured = max(lastMeasured ?? version, version)
        var keys = Self.judged.map { BestKey(source: source, name: $0.0, prefersLarger: $0.1) }
        if ruleKey.source == source, !keys.contains(ruleKey) { keys.append(ruleKey) }
        for key in keys {
            if bestValues[key]?.version == version {
                // What was best has been measured again: the others are looked at once.
                bestValues[key] = nil
                for (version, sources) in metrics { improve(key, version, sources[source]?[key.name]) }
            } else {
                improve(key, version, values?[key.name])
            }
        }
    }

    private mutating func improve(_ key: BestKey, _ version: Int, _ value: Double?) {
        guard let value, value.isFinite else { return }
        if let known = bestValues[key] {
            // The first of equals, so that a version keeps its mark.
            let isBetter = key.prefersLarger ? value > known.value : value < known.value
            guard isBetter || (value == known.value && version < known.version) else { return }
        }
        bestValues[key] = BestView(name: key.name, source: key.source, version: version, value: value)
    }

    /// Measurements that say which of two models is better, and whether larger is.
    private static let judged = [
        ("accuracy", true), ("top1", true), ("loss", false), ("nll", false), ("perplexity", false),
    ]

    /// Why the run should end now by its rule to stop, or `nil`.
    var reasonToStop: String? {
        if let reason = trieEnd { return reason }
        guard let stop = specification.stop, let last = latest(stop.metric).first(where: { _ in true }) else {
            return nil
        }
        if let bound = stop.atLeast, last.value >= bound {
            return "\(stop.metric) is \(last.value) at version \(last.version), at least \(bound)"
        }
        if let bound = stop.atMost, last.value <= bound {
            return "\(stop.metric) is \(last.value) at version \(last.version), at most \(bound)"
        }
        if let patience = stop.patience, let best = bestByRule {
            let since = latest(stop.metric).prefix { $0.version > best }.reduce(0) { count, _ in count + 1 }
            if since >= patience {
                return "\(stop.metric) has had no better value than version \(best)'s for \(since) measurements"
            }
        }
        return nil
    }
}

extension RunState {
    /// Why a trie is as long as it gets, or `nil`.
    var trieEnd: String? {
        guard specification.analytics?.isTrie == true, let last = versions.last, versions.count >= 2,
            last.sha256 == versions[versions.count - 2].sha256
        else { return nil }
        return "no prefix of \(last.version) characters had enough votes"
    }
}

/// A measurement that versions are compared by.
private struct BestKey: Hashable, Sendable {
    var source: String
    var name: String
    var prefersLarger: Bool
}

extension AssignmentRecord {
    /// Whether the work is to measure a version.
    package var isEvaluation: Bool { round < 0 }
    /// The version that the client starts from, or measures.
    var baseVersion: Int { isEvaluation ? -round : round - 1 }
}
