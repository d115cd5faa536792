import Foundation
import Tensors
package import WireFormat

/// One run in memory: its record, its specification, its open round and its published versions.
struct RunState: Sendable {
    var record: RunRecord
    let specification: RunSpecification
    /// The model as assignments describe it: a long tokeniser is a reference.
    let assignedModel: RunSpecification.Model
    /// The tokeniser's JSON and its hash, where it is long.
    let longTokenizer: (document: Data, sha256: String)?
    /// The latest attempt of the latest round.
    var round: RoundRecord?
    /// Every attempt, oldest first.
    var rounds: [RoundRecord] = []
    /// Version `n` is what round `n` published; version 0 is the initial model.
    var versions: [ModelVersionRecord] = []
    /// How often each client was assigned in this run.
    var participations: [String: Int] = [:]
    /// The assignments of the open attempt.
    var assignmentIDs: [String] = []
    var layout: ParameterLayout?
    /// What was measured of each version, by source and name.
    var metrics: [Int: [String: [String: Double]]] = [:]
    /// When each attempt began to report and to aggregate, by `number/attempt` and phase.
    var phaseStarts: [String: [String: Date]] = [:]
    /// Why updates of each round were refused and clients failed, by code.
    var refusals: [Int: [String: Int]] = [:]

    init(record: RunRecord) throws {
        self.record = record
        specification = try WireCoding.decode(RunSpecification.self, from: Data(record.specification.utf8))
        longTokenizer = specification.model.longTokenizer.map { ($0, Secrets.sha256($0)) }
        assignedModel =
            longTokenizer.map { [specification] in
                specification.model.referringToTokenizer(sha256: $0.sha256, url: "/v1/runs/\(record.id)/tokenizer")
            } ?? specification.model
    }

    mutating func setRound(_ record: RoundRecord) {
        if let index = rounds.lastIndex(where: { $0.number == record.number && $0.attempt == record.attempt }) {
            rounds[index] = record
        } else {
            rounds.append(record)
            assignmentIDs = []
        }
        round = rounds.last
    }

    /// How many more assignments the open round may hand out now.
    var freeSlots: Int {
        guard let round, round.phase.isCollecting else { return 0 }
        let wanted = Int((Double(specification.cohort.goal) * specification.cohort.overSelection).rounded(.up))
        return wanted - (round.assigned - round.rejected - round.failed - round.expired)
    }

    /// One sentence on what the round waits for.
    func waitingFor(now: Date) -> String {
        switch record.state {
        case "created": return "the run to be started"
        case "paused": return "the run to be resumed"
        case "completed", "cancelled", "failed": return "nothing: the run is \(record.state)"
        default: break
        }
        guard let round else { return "the first round to open" }
        let seconds = max(0, Int(round.deadline.timeIntervalSince(now)))
        let goal = specification.cohort.goal
        switch round.phase {
        case .selecting:
            return "clients to check in: \(round.assigned) assigned, \(round.accepted) of \(goal) updates accepted, "
                + "\(seconds) s left to find the minimum of \(specification.cohort.minimum)"
        case .reporting:
            return "updates: \(round.accepted) of \(goal) accepted, \(seconds) s left"
        case .aggregating: return "the aggregation of \(round.accepted) updates"
        case .committed: return "nothing: the round is committed"
        case .abandoned: return "the next attempt to open"
        }
    }
}
