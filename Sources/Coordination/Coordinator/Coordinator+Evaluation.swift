import DifferentialPrivacy
import Foundation
import Logging
import Tensors
import WireFormat

/// How versions are measured by clients: exactly without privacy, and as a noised release of its own with it.
extension Coordinator {
    // MARK: - Opening

    /// Keeps an evaluation that the population's budget does not admit as an attempt that ended before it began, so that the
    /// reason is where an operator looks for the measurement; the run goes on to its next round.
    func refuseEvaluation(_ round: RoundRecord, _ refusal: CoordinationError) throws {
        var round = round
        round.phase = .abandoned
        round.closedAt = now
        let reason = RoundRecord.refusedByBudget + refusal.message
        round.reason = reason
        logger.warning("A version is not measured", metadata: ["run.id": "\(round.runId)", "reason": "\(reason)"])
        try commit([
            .round(round),
            history(
                round.runId,
                round: round.number,
                attempt: round.attempt,
                state: round.phase,
                cause: reason
            ),
        ])
    }

    // MARK: - Closing

    /// Adds up what the clients of a closed evaluation measured; with privacy away from the actor, since it reads files.
    func startEvaluation(run id: String) {
        guard let run = runs[id], let round = run.round, round.phase == .aggregating, round.isEvaluation else { return }
        guard run.specification.hasPrivateEvaluation else { return finishEvaluation(run: id, nil) }
        // Noise is drawn once an attempt: when its transaction failed, the same result is tried again.
        if let known = evaluationReleases[id], known.round == round.number, known.attempt == round.attempt {
            return finishEvaluation(run: id, known.outcome)
        }
        let reports = counted(run).map {
            EvaluationRelease.Report(path: blobs.updatePath(of: $0.id), receiptPath: blobs.receiptPath(of: $0.id))
        }
        let evaluation = run.specification.evaluation
        let key = noiseKey(of: round)
        aggregating.insert(id)
        DispatchQueue.global(qos: .utility).async {
            let result = Result { try EvaluationRelease(evaluation).run(reports, noiseKey: key) }
            Task { await self.takeRelease(result, run: id, round: round.number, attempt: round.attempt) }
        }
    }

    private func takeRelease(
        _ result: Result<EvaluationRelease.Outcome, any Error>,
        run id: String,
        round number: Int,
        attempt: Int
    ) {
        aggregating.remove(id)
        guard let round = runs[id]?.round, round.phase == .aggregating, round.number == number, round.attempt == attempt
        else {
            // Meanwhile another attempt may have come to its end.
            if stalls[id] == nil { startAggregation(run: id) }
            return
        }
        // A second job of the attempt, after a retry, would be a second release: the first one stands.
        if let known = evaluationReleases[id], known.round == number, known.attempt == attempt {
            return finishEvaluation(run: id, known.outcome)
        }
        switch result {
        case .success(let outcome):
            evaluationReleases[id] = (number, attempt, outcome)
            finishEvaluation(run: id, outcome)
        case .failure(let error) where mayPass(error): stall(run: id, error)
        case .failure(let error):
            logger.error("An evaluation failed", metadata: ["run.id": "\(id)", "error": "\(error)"])
            do {
                try abandon(run: id, reason: "the evaluation failed: \(ErrorSentence.text(of: error))")
            } catch {
                stall(run: id, error)
            }
        }
    }

    /// Marks the version with what was measured; one transaction, with the ledger's row where it is charged.
    private func finishEvaluation(run id: String, _ release: EvaluationRelease.Outcome?) {
        do {
            guard let run = runs[id], var round = run.round, round.phase == .aggregating, round.isEvaluation else {
                return
            }
            if let error = budgets.trust.publishingHalt(run.specification) { return stall(run: id, error) }
            if run.record.state == .cancelled || run.record.state == .failed {
                evaluationReleases[id] = nil
                return try abandon(run: id, reason: "the run was \(run.record.state)")
            }
            let version = -round.number
            let effects = try round.apply(
                .aggregated(sha256: run.versions[version].sha256),
                at: now,
                terms: run.terms(of: round)
            )
            var changes: [StoreChange] = []
            for case .history(let state, let cause) in effects {
                let noise = release.map { Self.description(of: $0) } ?? ""
                changes.append(
                    history(
                        id,
                        round: round.number,
                        attempt: round.attempt,
                        state: state,
                        cause: cause + noise
                    )
                )
            }
            let ledgerCount = budgets.ledger.rows.count
            if let release {
                let row = try settle(run, round, as: .committed)
                round.epsilon = row.epsilonAfter
                changes.append(.ledger(row))
                if !release.rates.isEmpty {
                    changes.append(.modelMetrics(try record(release.rates, run: id, version, "federated")))
                }
            } else if let metrics = rates(of: counted(run), run: id, version: version, source: "federated") {
                round.cappedWeights = means(of: counted(run), run: id).cappedCount
                changes.append(.modelMetrics(metrics))
            }
            let spooled = release == nil ? [] : counted(run).map(\.id)
            try commit([.round(round)] + changes, ledgerCount: ledgerCount)
            endAttempt(run: id)
            forget(run: id, spooled: spooled)
            try openNext(run: id)
        } catch {
            if runs[id]?.round?.phase == .aggregating {
                stall(run: id, error)
            } else {
                logger.error("A round could not be opened", metadata: ["run.id": "\(id)", "error": "\(error)"])
            }
        }
    }

    private static func description(of release: EvaluationRelease.Outcome) -> String {
        guard !release.noise.isEmpty else { return "; the noise left nothing of it: more clients, or less noise" }
        let noise = release.noise.sorted { $0.key < $1.key }.map { String(format: "%@ ±%.2g", $0.key, $0.value) }
        return "; standard deviation of the noise: " + noise.joined(separator: ", ")
    }

    private func record(
        _ rates: [String: Double],
        run: String,
        _ version: Int,
        _ source: String
    ) throws -> ModelMetricsRecord {
        ModelMetricsRecord(
            runId: run,
            version: version,
            source: source,
            metrics: String(decoding: try WireCoding.encode(rates), as: UTF8.self),
            measuredAt: now
        )
    }

    /// The rates of exact sums over clients, in whatever order they came; `nil` where nobody sent any.
    func rates(
        of records: [AssignmentRecord],
        run: String,
        version: Int,
        source: String
    ) -> ModelMetricsRecord? {
        let means = means(of: records, run: run)
        guard !means.rates.isEmpty else { return nil }
        return try? record(means.rates, run: run, version, source)
    }

    /// The means of what clients measured, each held to the run's `example_cap`.
    func means(of records: [AssignmentRecord], run: String) -> CohortMeans {
        let clients = records.compactMap { record -> (sums: [String: Double], exampleCount: Int)? in
            guard let text = record.metrics,
                let values = try? JSONDecoder().decode([String: Double].self, from: Data(text.utf8))
            else { return nil }
            // Those that were stored before the run's own names counted may hold others.
            let wanted = runs[run]?.specification.declared(values) ?? values
            return (wanted, record.exampleCount ?? 1)
        }
        return CohortMeans(of: clients, cap: runs[run]?.specification.aggregation.exampleCap ?? .off)
    }
}
