import Foundation
import WireFormat

/// How far a run is at one moment: every view of the run and of its rounds is filled here.
struct RunProgress {
    /// The run, as a copy that nothing may hold while the run changes.
    let run: RunState
    /// The moment.
    let time: Date
    /// What has to happen next, in words.
    let waitingFor: String
    /// The size that every update has with privacy, which only rounds of private runs ask for; 0 if it is not known.
    let plannedByteCount: () -> Int

    private var record: RunRecord { run.record }
    private var round: Int { abs(run.round?.number ?? 0) }
    private var committedRounds: Int { max(0, run.versions.count - 1) }
    private var createdAt: String { record.createdAt.wireTimestamp }

    /// The run as it is shown by itself and in lists.
    var view: RunView {
        RunView(
            id: record.id,
            name: record.name,
            population: record.populationId,
            state: record.state,
            reason: record.reason,
            createdAt: createdAt,
            round: round,
            committedRounds: committedRounds,
            modelVersion: run.versions.last?.version,
            modelSha256: run.versions.last?.sha256,
            epsilon: run.lastEpsilon,
            bestVersion: run.bestVersion,
            waitingFor: waitingFor,
            specification: run.specification
        )
    }

    /// The run as the overview shows it.
    var summary: RunSummary {
        RunSummary(
            id: record.id,
            name: record.name,
            population: record.populationId,
            state: record.state,
            reason: record.reason,
            createdAt: createdAt,
            rounds: run.specification.rounds,
            round: round,
            roundKind: run.round?.isEvaluation == true ? .evaluation : .training,
            committedRounds: committedRounds,
            epsilon: run.lastEpsilon,
            bestVersion: run.bestVersion,
            metrics: run.lastMeasured.flatMap { run.metrics[$0] },
            waitingFor: waitingFor
        )
    }

    /// The run as an event tells it.
    var event: RunEventData {
        RunEventData(
            id: record.id,
            name: record.name,
            population: record.populationId,
            state: record.state,
            reason: record.reason,
            createdAt: createdAt,
            round: round,
            committedRounds: committedRounds,
            modelVersion: run.versions.last?.version,
            modelSha256: run.versions.last?.sha256,
            epsilon: run.lastEpsilon,
            waitingFor: waitingFor
        )
    }

    /// One attempt at a round.
    ///
    /// - Parameters:
    ///   - round: The attempt.
    ///   - assignments: The run's assignments, of which the open attempt counts those at work.
    /// - Returns: The attempt as it is shown.
    func view(_ round: RoundRecord, _ assignments: RunTable) -> RoundView {
        let isCurrent = round == run.round
        let terms = run.terms(of: round)
        return RoundView(
            run: round.runId,
            kind: round.isEvaluation ? .evaluation : RoundKind(of: run.specification.kind),
            number: abs(round.number),
            attempt: round.attempt,
            state: round.phase,
            reason: round.reason,
            goal: terms.goal,
            minimum: terms.minimum,
            assigned: round.assigned,
            accepted: round.accepted,
            rejected: round.rejected,
            failed: round.failed,
            expired: round.expired,
            excluded: round.excluded,
            cappedWeights: round.cappedWeights,
            weightCap: round.weightCap,
            cappedNorms: round.cappedNorms,
            normBound: round.normBound,
            bytesUp: run.bytesUp(round, plannedByteCount: plannedByteCount),
            bytesDown: run.bytesDown(round),
            openedAt: round.openedAt.wireTimestamp,
            deadline: round.phase.isCollecting ? round.deadline.wireTimestamp : nil,
            closedAt: round.closedAt?.wireTimestamp,
            seconds: (round.closedAt ?? time).timeIntervalSince(round.openedAt),
            phaseSeconds: run.phaseSeconds(round, at: time),
            modelSha256: round.modelSha256,
            epsilon: round.epsilon,
            refusals: run.refusals[round.number] ?? [:],
            metrics: round.phase == .committed ? run.metrics[abs(round.number)] : nil,
            live: isCurrent ? assignments.liveStates(of: run) : nil,
            isSecret: terms.isSecret,
            tiers: round.tierTable.enumerated().map {
                TierView(tier: $0.offset, assigned: $0.element[0], accepted: $0.element[1])
            },
            waitingFor: isCurrent ? waitingFor : "nothing: the round is \(round.phase.rawValue)"
        )
    }
}

extension RunState {
    /// A published version as it is shown.
    func view(_ version: ModelVersionRecord) -> ModelVersionView {
        let (run, number) = (RunReference(version.runId), VersionReference(version.version))
        return ModelVersionView(
            run: version.runId,
            version: version.version,
            sha256: version.sha256,
            bytes: version.bytes,
            createdAt: version.createdAt.wireTimestamp,
            url: Endpoints.weights(run, number).target,
            optimizerSha256: version.optimizerSha256,
            optimizerUrl: version.optimizerSha256.map { _ in Endpoints.optimizerState(run, number).target },
            controlSha256: version.controlSha256,
            controlUrl: version.controlSha256.map { _ in Endpoints.controlVariate(run, number).target },
            clippingNorm: version.clippingNorm,
            metrics: metrics[version.version],
            isBest: bestVersion == version.version
        )
    }
}
