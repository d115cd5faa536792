import Foundation
package import WireFormat

extension Coordinator {
    /// Stores what somebody measured of a model version; a later report of the same source replaces it.
    package func reportMetrics(run id: String, version: String, _ report: MetricsReport) throws -> ModelVersionView {
        let number = try model(run: id, version: version).version
        let document = try WireCoding.encode(report.metrics)
        try commit([
            .modelMetrics(
                ModelMetricsRecord(
                    runId: id,
                    version: number,
                    source: report.source,
                    metrics: String(decoding: document, as: UTF8.self),
                    measuredAt: now
                )
            )
        ])
        return try model(run: id, version: String(number))
    }

    /// Counts what was sent of a model in the attempt that is open; it is stored with the attempt's next change.
    package func noteDownload(run id: String, version: Int, byteCount: Int) {
        runs[id]?.countDownload(version: version, byteCount: byteCount)
    }

    func noteMetrics(_ record: ModelMetricsRecord) {
        let values = try? WireCoding.decodeStored([String: Double].self, from: Data(record.metrics.utf8))
        runs[record.runId]?.setMetrics(values, version: record.version, source: record.source)
    }

    private static let laterPhases: [RoundPhase] = [.reporting, .aggregating]

    /// Remembers when an attempt began to report or to aggregate.
    func notePhase(_ row: HistoryRow) {
        guard row.round > 0, let phase = RoundPhase(rawValue: row.state), Self.laterPhases.contains(phase) else {
            return
        }
        runs[row.runId]?.phaseStarts["\(row.round)/\(row.attempt)", default: [:]][phase.rawValue] = row.at
    }

    /// How long each phase of an attempt took so far, in seconds.
    func phaseSeconds(_ round: RoundRecord, of run: RunState) -> [String: Double] {
        let starts = run.phaseStarts["\(round.number)/\(round.attempt)"] ?? [:]
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

    /// Counts an assignment that ended badly, when it does.
    func noteRefusal(_ record: AssignmentRecord, before: AssignmentState?) {
        guard record.state == .rejected || record.state == .failed, record.state != before else { return }
        runs[record.runId]?.refusals[record.round, default: [:]][record.code ?? "unknown", default: 0] += 1
    }
}
