import Foundation
import WireFormat

/// The end of a round that has a result: what its transaction changes, for a round of training as for an evaluation.
struct RoundClosing {
    /// The round as it ends.
    private(set) var round: RoundRecord
    private let run: RunState
    private let time: Date
    private var histories: [StoreChange] = []
    private var charge: LedgerRow?
    private var metrics: ModelMetricsRecord?
    private var model: ModelVersionRecord?
    private var judged: [StoreChange] = []
    /// Of a protected round.
    private var session: ProtectedSessionRecord?

    /// Ends an evaluation.
    ///
    /// - Parameters:
    ///   - release: What is published with noise; `nil` for exact sums.
    ///   - run: The run.
    ///   - round: The round, whose sum is being made.
    ///   - counted: The assignments that count.
    ///   - time: When.
    /// - Throws: ``CoordinationError`` if the round is not being summed.
    init(
        measured release: EvaluationRelease.Outcome?,
        _ run: RunState,
        _ round: RoundRecord,
        counted: [AssignmentRecord],
        at time: Date
    ) throws {
        self.init(run, round, at: time)
        let version = -round.number
        let note = release.map { "; " + $0.noiseInWords } ?? ""
        try end(sha256: run.versions[version].sha256, note: note)
        if let release {
            guard !release.rates.isEmpty else { return }
            metrics = try run.metricsRecord(release.rates, version: version, source: "federated", at: time)
        } else {
            let means = run.specification.means(of: counted)
            guard !means.rates.isEmpty else { return }
            metrics = try? run.metricsRecord(means.rates, version: version, source: "federated", at: time)
            if metrics != nil { self.round.cappedWeights = means.cappedCount }
        }
    }

    /// Ends a round of training.
    ///
    /// - Parameters:
    ///   - outcome: What the arithmetic has come to.
    ///   - model: The file of the version that is published.
    ///   - run: The run.
    ///   - round: The round, whose sum is being made.
    ///   - counted: The assignments that count.
    ///   - judged: What scores ask for.
    ///   - time: When.
    /// - Throws: ``CoordinationError`` if the round is not being summed.
    init(
        published outcome: AggregationJob.Outcome,
        _ model: AggregationJob.File,
        _ run: RunState,
        _ round: RoundRecord,
        counted: [AssignmentRecord],
        judged: [StoreChange],
        at time: Date
    ) throws {
        self.init(run, round, at: time)
        self.judged = judged
        var session = run.session(of: round)
        session?.state = .published
        self.session = session
        self.model = ModelVersionRecord(
            runId: round.runId,
            version: round.number,
            sha256: model.sha256,
            bytes: model.byteCount,
            createdAt: time,
            optimizerSha256: outcome.optimizer?.sha256,
            controlSha256: outcome.control?.sha256,
            clippingNorm: outcome.nextNorm
        )
        try end(sha256: model.sha256, note: "")
        self.round.excluded = session?.excludedAssignments.count ?? outcome.scores.count { !$0.counted }
        guard run.specification.privacy.mode == .none else { return }
        self.round.note(outcome.cuts)
        let means = run.specification.means(of: counted)
        guard !means.rates.isEmpty else { return }
        metrics = try? run.metricsRecord(means.rates, version: round.number, source: "training", at: time)
    }

    private init(_ run: RunState, _ round: RoundRecord, at time: Date) {
        (self.run, self.round, self.time) = (run, round, time)
    }

    private mutating func end(sha256: String, note: String) throws {
        let effects: [RoundEffect]
        do {
            effects = try round.apply(.aggregated(sha256: sha256), at: time, terms: run.terms(of: round))
        } catch {
            throw error.refusal
        }
        for case .history(let state, let cause) in effects {
            histories.append(round.history(at: time, state: state, cause: cause + note))
        }
    }

    /// Whether the round has a reservation, which the transaction ends with a charge.
    var isCharged: Bool {
        // Of a protected round the charge is committed before its list leaves.
        round.isEvaluation
            ? run.specification.hasPrivateEvaluation : run.specification.privacy.mode != .none && session == nil
    }

    /// Takes the charge.
    mutating func settle(_ row: LedgerRow) {
        round.epsilon = row.epsilonAfter
        charge = row
    }

    /// The whole transaction.
    ///
    /// Events have the order of its changes: a version comes before its round's end, which comes after the charge.
    var changes: [StoreChange] {
        let middle =
            histories + (charge.map { [.ledger($0)] } ?? []) + (metrics.map { [.modelMetrics($0)] } ?? [])
            + (session.map { [.protectedSession($0)] } ?? [])
        guard let model else { return [.round(round)] + middle }
        return [.modelVersion(model)] + middle + judged + [.round(round)]
    }
}

extension RunState {
    /// What was measured of a version, as it is stored.
    func metricsRecord(
        _ rates: [String: Double],
        version: Int,
        source: String,
        at time: Date
    ) throws -> ModelMetricsRecord {
        ModelMetricsRecord(
            runId: record.id,
            version: version,
            source: source,
            metrics: String(decoding: try WireCoding.encode(rates), as: UTF8.self),
            measuredAt: time
        )
    }
}

extension RunSpecification {
    /// The means of what clients measured, each held to the run's `example_cap`, in whatever order they came.
    func means(of records: [AssignmentRecord]) -> CohortMeans {
        let clients = records.compactMap { record -> (sums: [String: Double], exampleCount: Int)? in
            guard let text = record.metrics,
                let values = try? JSONDecoder().decode([String: Double].self, from: Data(text.utf8))
            else { return nil }
            // Those that were stored before the run's own names counted may hold others.
            return (declared(values), record.exampleCount ?? 1)
        }
        return CohortMeans(of: clients, cap: aggregation.exampleCap)
    }
}

extension EvaluationRelease.Outcome {
    /// How much noise each rate has.
    fileprivate var noiseInWords: String {
        guard !noise.isEmpty else { return "the noise left nothing of it: more clients, or less noise" }
        let parts = noise.sorted { $0.key < $1.key }.map { String(format: "%@ ±%.2g", $0.key, $0.value) }
        return "standard deviation of the noise: " + parts.joined(separator: ", ")
    }
}
