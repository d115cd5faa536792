import DifferentialPrivacy
import WireFormat

/// What has to be computed of a closed round, for a thread that may take minutes.
enum RoundArithmetic: Sendable {
    /// The next model.
    case model(AggregationJob)
    /// The noised measurements of a version.
    case measurements(RunSpecification.Evaluation, [EvaluationRelease.Report], NoiseKey)

    /// Computes it.
    ///
    /// - Parameter metrics: Counts how many models are being made, and how long each phase takes.
    /// - Returns: What it has come to.
    /// - Throws: What files cannot be read or written for.
    func run(_ metrics: MetricsRegistry) throws -> RoundResult {
        switch self {
        case .measurements(let evaluation, let reports, let key):
            return .measurements(try EvaluationRelease(evaluation).run(reports, noiseKey: key))
        case .model(var job):
            metrics.add("martlet_aggregations_running")
            defer { metrics.add("martlet_aggregations_running", -1) }
            job.report = { phase, seconds in
                metrics.observe("martlet_aggregation_seconds", seconds, ["phase": phase])
            }
            return .model(try job.timed("total") { try job.run() })
        }
    }
}
