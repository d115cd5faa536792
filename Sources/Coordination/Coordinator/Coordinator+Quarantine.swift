import Foundation
import Logging
package import WireFormat

extension UpdateScoreView {
    init(_ record: UpdateScoreRecord) {
        self.init(
            run: record.runId,
            round: record.round,
            attempt: record.attempt,
            assignment: record.assignmentId,
            client: record.clientId,
            numExamples: record.exampleCount,
            norm: record.norm,
            normRatio: record.normRatio,
            cosine: record.cosine,
            counted: record.counted,
            reason: record.reason
        )
    }
}

extension Coordinator {
    /// The changes that a round's scores ask for: the scores themselves, and clients that are asked for no more work.
    func judge(_ scores: [UpdateScoreRecord]) -> [StoreChange] {
        let quarantined = clients.quarantining(scores, at: now) { run in
            runs[run]?.specification.aggregation.anomalies?.action == .quarantine
        }
        for (score, client) in quarantined {
            logger.notice(
                "A client was quarantined",
                metadata: ["client.id": "\(client.id)", "run.id": "\(score.runId)", "round.id": "\(score.round)"]
            )
        }
        return scores.map { .updateScore($0) } + quarantined.map { .client($0.client) }
    }

    /// How far the updates of a round stood out, the longest first; empty where the run does not ask for scores.
    package nonisolated func updateScores(run id: String, round number: Int) async throws -> [UpdateScoreView] {
        try await requireRound(run: id, number: number)
        return try store.updateScores(run: id, round: number).map(UpdateScoreView.init)
    }

    /// How far one client's latest updates stood out.
    package nonisolated func updateScores(client id: String) async throws -> [UpdateScoreView] {
        _ = try await client(id)
        return try store.updateScores(client: id, limit: 1000).map(UpdateScoreView.init)
    }

    /// Lets a quarantined client take part again.
    package func releaseClient(_ id: String) throws {
        guard let record = try clients.releasing(id) else { return }
        try commit([.client(record)])
        wakeAll()
    }
}
