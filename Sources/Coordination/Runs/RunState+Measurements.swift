import Foundation
import WireFormat

/// What is counted and measured while a run goes on.
extension RunState {
    private static let laterPhases: [RoundPhase] = [.reporting, .aggregating]

    /// Keeps when an attempt began to report or to aggregate.
    mutating func notePhase(_ row: HistoryRow) {
        guard row.round > 0, let phase = RoundPhase(rawValue: row.state), Self.laterPhases.contains(phase) else {
            return
        }
        phaseStarts["\(row.round)/\(row.attempt)", default: [:]][phase.rawValue] = row.at
    }

    /// Seconds that each phase of an attempt has taken so far.
    func phaseSeconds(_ round: RoundRecord, at now: Date) -> [String: Double] {
        let starts = phaseStarts["\(round.number)/\(round.attempt)"] ?? [:]
        var seconds: [String: Double] = [:]
        var from = round.openedAt
        var phase = RoundPhase.selecting.rawValue
        for next in Self.laterPhases.map(\.rawValue) {
            guard let start = starts[next] else { continue }
            seconds[phase] = start.timeIntervalSince(from)
            (phase, from) = (next, start)
        }
        seconds[phase] = (round.closedAt ?? now).timeIntervalSince(from)
        return seconds
    }

    /// Takes what one source measured of a version, as it is stored.
    mutating func noteMetrics(_ record: ModelMetricsRecord) {
        let values = try? WireCoding.decodeStored([String: Double].self, from: Data(record.metrics.utf8))
        setMetrics(values, version: record.version, source: record.source)
    }

    /// Counts an assignment that ended badly, when it does.
    mutating func countRefusal(_ record: AssignmentRecord, before: AssignmentState?) {
        guard record.state == .rejected || record.state == .failed, record.state != before else { return }
        refusals[record.round, default: [:]][record.code ?? "unknown", default: 0] += 1
    }

    /// Bytes of an attempt's accepted updates; `nil` if their number is secret.
    ///
    /// With privacy they are the planned size times the number of updates, since what arrived may depend on people's data.
    func bytesUp(_ round: RoundRecord, plannedByteCount: () -> Int) -> Int? {
        guard specification.isPrivate else { return round.bytesUp }
        guard !terms(of: round).isSecret else { return nil }
        return (round.isEvaluation ? EvaluationResult.privateByteCount : plannedByteCount()) * round.accepted
    }

    /// Bytes of models that were sent while the attempt was open; `nil` if the number of clients is secret.
    func bytesDown(_ round: RoundRecord) -> Int? { terms(of: round).isSecret ? nil : round.bytesDown }
}
