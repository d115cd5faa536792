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
    var rounds: [RoundRecord] = []
    /// Version `n` is what round `n` published; version 0 is the initial model.
    var versions: [ModelVersionRecord] = []
    private let participation = ParticipationTable()
    /// The assignments of the open attempt; in mode `buffered` also live ones of earlier rounds.
    var assignmentIDs: [String] = []
    /// Those of them that may still deliver an update.
    var training: Set<String> = []
    /// Those of them that may still deliver measurements.
    var measuring: Set<String> = []
    /// Clients that have had their part in the open attempt.
    var members: Set<String> = []
    /// Who checked in while a `uniform` round selects.
    var reservoir: Reservoir?
    /// Bounds between the tiers of speed, in seconds an assignment, slowest tier first.
    var tierBounds: [Double] = []
    var layout: ParameterLayout?
    /// What was measured of each version, by source and name.
    var metrics: [Int: [String: [String: Double]]] = [:]
    /// When each attempt began to report and to aggregate, by `number/attempt` and phase.
    var phaseStarts: [String: [String: Date]] = [:]
    /// Why updates of each round were refused and clients failed, by code.
    var refusals: [Int: [String: Int]] = [:]
    /// Clients that the run's rules admit, when that was last counted.
    var eligible: (count: Int, at: Date)?

    init(record: RunRecord) throws {
        self.record = record
        // Read and not decoded: fields that are younger than the run have their defaults.
        specification = try RunSpecification.read(JSONValue.parse(Array(record.specification.utf8)))
        requirements = try specification.cohort.requirements.map { text in try EligibilityExpression(text) }
        minimumVersion = specification.cohort.minimumClientVersion.flatMap { DottedVersion($0) }
        longTokenizer = specification.model.longTokenizer.map { ($0, Secrets.sha256($0)) }
        assignedModel =
            longTokenizer.map { [specification] in
                specification.model.referringToTokenizer(sha256: $0.sha256, url: "/v1/runs/\(record.id)/tokenizer")
            } ?? specification.model
    }

    /// How often each client was given work for training in this run, and in which round it was last.
    var participations: [String: Int] { participation.trainings }
    var lastRounds: [String: Int] { participation.lastRounds }
    /// How often each client was asked to evaluate.
    var evaluations: [String: Int] { participation.evaluations }

    /// Counts one more assignment of its client.
    func noteParticipation(_ record: AssignmentRecord) { participation.note(record) }

    mutating func setRound(_ record: RoundRecord) {
        if let last = rounds.last, last.number < record.number {
            rounds.append(record)
        } else if let index = rounds.lastIndex(where: { $0.number == record.number && $0.attempt == record.attempt }) {
            rounds[index] = record
        } else {
            rounds.append(record)
        }
        round = rounds.last
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
    var isBuffered: Bool { specification.aggregation.mode == "buffered" }

    /// Everyone who may still deliver.
    var live: Set<String> { training.union(measuring) }

    /// Who may still deliver to the open round, or to one of its kind.
    var atWork: Set<String> { round?.isEvaluation == true ? measuring : training }

    /// Whether the open round counts what happens to an assignment.
    func counts(_ record: AssignmentRecord) -> Bool {
        round.map { $0.phase.isCollecting && $0.isEvaluation == record.isEvaluation } ?? false
    }

    /// Notes whether an assignment may still deliver.
    mutating func noteState(of record: AssignmentRecord) {
        switch (record.isEvaluation, record.state.isLive) {
        case (true, true): measuring.insert(record.id)
        case (true, false): measuring.remove(record.id)
        case (false, true): training.insert(record.id)
        case (false, false): training.remove(record.id)
        }
    }

    /// Seconds that a sign of life is good for; a minute where the run does not say.
    var lease: Double { specification.cohort.leaseS ?? 60 }

    /// What the round is judged by.
    func terms(of round: RoundRecord) -> RoundTerms {
        RoundTerms(specification, isEvaluation: round.isEvaluation)
    }

    /// How many more assignments the open round may hand out now.
    var freeSlots: Int {
        guard record.state == "running", let round, round.phase.isCollecting else { return 0 }
        let terms = terms(of: round)
        if terms.policy.isDrawn { return max(0, (round.drawn ?? 0) - members.count) }
        if terms.policy == .uniform && round.phase == .selecting { return 0 }
        return max(0, terms.wanted - atWork.count - (terms.isBuffered ? 0 : round.accepted))
    }

    /// Whether an accepted update's attempt became a model version; `nil` while that is open.
    func hasCommitted(_ assignment: AssignmentRecord) -> Bool? {
        let number = assignment.countedRound ?? assignment.round
        let own = rounds.last {
            $0.number == number && (assignment.countedRound != nil || $0.attempt == assignment.attempt)
        }
        guard let own, own.phase.isFinal else { return nil }
        return own.phase == .committed
    }

    /// Whether nothing more will happen.
    var isOver: Bool { ["completed", "cancelled", "failed"].contains(record.state) }

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
        let attempts = rounds.filter { $0.number == -version }
        let isOver = attempts.contains { $0.phase == .committed || $0.isRefusedByBudget }
        return isOver || attempts.count >= 3 ? nil : version
    }

    /// A rate of each version by the source that counts: evaluation rounds, or training where there are none.
    func series(_ metric: String) -> [(version: Int, value: Double)] {
        let source = specification.evaluation.every > 0 ? "federated" : "training"
        return metrics.keys.sorted().compactMap { version in
            metrics[version]?[source]?[metric].map { (version, $0) }
        }
    }

    /// The version to take: the best by the rule to stop, or by what was measured of most weight.
    var bestVersion: Int? { (specification.stop == nil ? nil : bestByRule) ?? bests.first?.version }

    /// The version with the clients' best value of the rule's metric, or of the loss.
    var bestByRule: Int? {
        let metric = specification.stop?.metric ?? "loss"
        let prefersLarger = specification.stop?.prefersLarger ?? false
        // The first of equals, so that a version keeps its mark.
        return series(metric).min {
            $0.value != $1.value
                ? (prefersLarger ? $0.value > $1.value : $0.value < $1.value) : $0.version < $1.version
        }?.version
    }

    /// Why the run should end now by its rule to stop, or `nil`.
    var reasonToStop: String? {
        if let reason = trieEnd { return reason }
        guard let stop = specification.stop, let last = series(stop.metric).last else { return nil }
        if let bound = stop.atLeast, last.value >= bound {
            return "\(stop.metric) is \(last.value) at version \(last.version), at least \(bound)"
        }
        if let bound = stop.atMost, last.value <= bound {
            return "\(stop.metric) is \(last.value) at version \(last.version), at most \(bound)"
        }
        if let patience = stop.patience, let best = bestByRule {
            let since = series(stop.metric).filter { $0.version > best }.count
            if since >= patience {
                return "\(stop.metric) has had no better value than version \(best)'s for \(since) measurements"
            }
        }
        return nil
    }
}
