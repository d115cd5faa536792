import DifferentialPrivacy
import Foundation
import StrictJSON
import WireFormat

/// One noised release of what clients measured of a version: their rates, each client counting alike.
///
/// A client's contribution is the vector (1, r₁/b₁, …, r_k/b_k) of its rates over their bounds, each cut to 0…1, so its norm
/// is at most C = √(k+1). Contributions are added as integers on the noise's grid, where the norm is checked exactly, and the
/// sum gets Gaussian noise of standard deviation z·C once. A published rate is the noised sum over the noised number of
/// clients: what follows the noise costs nothing, and nothing is divided by a number that depends on who came.
struct EvaluationRelease: Sendable {
    /// One client's accepted sums, on disk.
    struct Report: Sendable {
        var path: String
        /// Its ``SpooledReceipt``.
        var receiptPath: String
    }

    /// What was published of a version.
    struct Outcome: Equatable, Sendable {
        /// By name; empty where the noise left nothing of the number of clients.
        var rates: [String: Double]
        /// Standard deviation of the noise on each rate, by name, as far as it is known without the data.
        var noise: [String: Double]
    }

    let metrics: [String]
    let lossBound: Double
    private let clippingNorm: Double
    let grid: NoiseGrid

    /// Prepares the release of a run with private evaluation.
    ///
    /// - Throws: ``PrivacyError`` where the noise is not proven for these numbers.
    init(_ evaluation: RunSpecification.Evaluation) throws(PrivacyError) {
        metrics = evaluation.metrics ?? []
        lossBound = evaluation.lossBound ?? 1
        clippingNorm = Double(metrics.count + 1).squareRoot()
        grid = try NoiseGrid(
            clippingNorm: clippingNorm,
            noiseMultiplier: evaluation.noiseMultiplier ?? 0,
            parameterCount: metrics.count + 1
        )
    }

    /// What a client whose data gave nothing adds: 0 to every sum and to the number of clients.
    private var nothing: [Float] { [Float](repeating: 0, count: metrics.count + 1) }

    /// What a rate is cut at.
    func bound(of metric: String) -> Double { metric == MetricSums.lossName ? lossBound : 1 }

    /// A client's vector before it is rounded; a rate that it did not send counts as 0.
    func contribution(_ result: EvaluationResult) -> [Float] {
        guard result.numExamples > 0 else { return nothing }
        var sums = MetricSums()
        sums.add(result.metrics, exampleCount: result.numExamples)
        let rates = sums.rates
        return [1]
            + metrics.map { name in
                let share = (rates[name] ?? 0) / bound(of: name)
                return Float(share.isFinite ? max(0, min(1, share)) : 0)
            }
    }

    /// The exact sum of clients' contributions, in units of the grid: the same in whatever order they come.
    func sum(_ contributions: some Sequence<[Float]>) -> [Int64] {
        var sums = [Int64](repeating: 0, count: metrics.count + 1)
        for contribution in contributions { add(contribution, to: &sums) }
        return sums
    }

    private func add(_ contribution: [Float], to sums: inout [Int64]) {
        for (index, value) in grid.quantize(contribution).enumerated() { sums[index] += value }
    }

    /// Adds the noise of one release, made of the attempt's key.
    func addNoise(to sums: inout [Int64], _ key: NoiseKey = NoiseKey()) throws(PrivacyError) {
        try grid.addNoise(to: &sums, releaseKey: key.derived(for: .evaluation))
    }

    /// The rates of noised sums.
    func outcome(_ noised: [Int64]) -> Outcome {
        let clientCount = Double(noised[0]) * grid.step
        // Fewer than one client by the noised count: there is nothing to say.
        guard clientCount >= 1 else { return Outcome(rates: [:], noise: [:]) }
        var outcome = Outcome(rates: [:], noise: [:])
        for (index, name) in metrics.enumerated() {
            let share = Double(noised[index + 1]) * grid.step / clientCount
            outcome.rates[name] = max(0, min(1, share)) * bound(of: name)
            outcome.noise[name] = grid.noiseMultiplier * clippingNorm / clientCount * bound(of: name)
        }
        return outcome
    }

    /// Makes the release of the clients' files.
    ///
    /// - Throws: Errors of reading; ``PrivacyError/randomSourceFailed``.
    func run(_ reports: [Report], noiseKey: NoiseKey = NoiseKey()) throws -> Outcome {
        var sums = [Int64](repeating: 0, count: metrics.count + 1)
        for report in reports {
            let bytes = try DurableFiles.read(report.path, role: .update)
            guard try Secrets.sha256(bytes) == SpooledReceipt.read(path: report.receiptPath)?.sha256 else {
                throw CoordinationError(.unavailable, "update_lost", "an accepted measurement is not what was received")
            }
            let result = try EvaluationResult.read(JSONValue.parse(Array(bytes)), isPrivate: true)
            add(contribution(result), to: &sums)
        }
        try addNoise(to: &sums, noiseKey)
        return outcome(sums)
    }
}

extension PrivacyCharge {
    /// What each evaluation of a run costs; `nil` where it has none that is charged.
    static func evaluation(of specification: RunSpecification) -> PrivacyCharge? {
        guard specification.hasPrivateEvaluation else { return nil }
        let evaluation = specification.evaluation
        var charge = PrivacyCharge(
            mode: specification.privacy.mode,
            noiseMultiplier: evaluation.noiseMultiplier ?? 0,
            participationCap: evaluation.maxParticipations ?? 0,
            parameterCount: (evaluation.metrics?.count ?? 0) + 1
        )
        charge.release = Self.evaluationRelease
        if specification.followsItsOutputs { charge.isAdaptive = true }
        return charge
    }

    /// ``release`` of evaluations.
    package static let evaluationRelease = ReleaseWord.evaluation.rawValue

    /// Everything that the first `rounds` rounds of a run release, its evaluations among them.
    ///
    /// - Throws: ``PrivacyError``.
    static func releases(
        of specification: RunSpecification,
        parameterCount: Int,
        rounds: Int
    ) throws(PrivacyError) -> [CappedRelease] {
        guard rounds > 0 else { return [] }
        var releases = [try PrivacyCharge(of: specification, parameterCount: parameterCount).release(count: rounds)]
        let evaluations = specification.evaluationCount(rounds: rounds)
        if evaluations > 0, let charge = evaluation(of: specification) {
            releases.append(try charge.release(count: evaluations))
        }
        return releases
    }
}
