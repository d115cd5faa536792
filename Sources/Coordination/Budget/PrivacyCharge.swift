package import DifferentialPrivacy
import Foundation

/// The event of one charge, as the ledger keeps it: canonical JSON, so that an outsider can judge it again.
package struct PrivacyCharge: Codable, Hashable, Sendable {
    /// `gaussian`, `banded_matrix`, `laplace`, `discrete_gaussian`, `poisson_gaussian`, `sample_and_threshold` or
    /// `approximate`.
    package var kind: String
    package var mode: String
    /// z of Gaussian kinds; scale over L1 sensitivity of `laplace`.
    package var noiseMultiplier: Double
    /// Per client in the run; 0 is without limit.
    package var participationCap: Int
    package var relation: String
    /// Noised coordinates of one release.
    package var parameterCount: Int
    /// What is released: `update` where absent, else `evaluation`, `analytics`, … for charges beside it.
    package var release: String?
    package var samplingRate: Double?
    /// Coefficients of the matrix mechanism's band.
    package var band: [Double]?
    package var minSeparation: Int?
    /// Of `approximate`.
    package var epsilon: Double?
    package var delta: Double?
    /// Whether parameters other than z, or the number of releases, follow earlier outputs: then filters enforce.
    package var isAdaptive: Bool?
    /// Releases that this one row stands for; 1 where absent.
    package var count: Int?
    /// Votes that `sample_and_threshold` wants.
    package var threshold: Int?

    package init(
        kind: String = "gaussian",
        mode: String,
        noiseMultiplier: Double,
        participationCap: Int,
        parameterCount: Int
    ) {
        self.kind = kind
        self.mode = mode
        self.noiseMultiplier = noiseMultiplier
        self.participationCap = participationCap
        // A local report may be replaced by any other, and its noise is relative to 2C.
        relation = mode == "local" ? "replace_one" : Self.sampled.contains(kind) ? "add_remove" : "zero_out"
        self.parameterCount = parameterCount
    }

    /// Mechanisms that rest on a draw of the server's own.
    private static let sampled = ["poisson_gaussian", "sample_and_threshold"]

    /// What identifies the mechanism: rows of one run with the same key are one plan.
    var plan: PrivacyCharge {
        var plan = self
        plan.count = nil
        return plan
    }

    /// `count` releases of the charge as an accountant takes them.
    ///
    /// - Throws: ``PrivacyError`` for a kind that is not known or parameters out of range: then nothing may be released.
    package func release(count: Int) throws(PrivacyError) -> CappedRelease {
        func make(_ event: PrivacyEvent, exact: Bool = false) -> CappedRelease {
            CappedRelease(event, count: count, cap: participationCap, coordinateCount: exact ? 0 : parameterCount)
        }
        switch kind {
        case "gaussian": return make(.gaussian(noiseMultiplier: noiseMultiplier))
        case "discrete_gaussian": return make(.discreteGaussian(noiseMultiplier: noiseMultiplier), exact: true)
        case "poisson_gaussian":
            return make(.poissonGaussian(samplingRate: samplingRate ?? 1, noiseMultiplier: noiseMultiplier))
        case "laplace": return make(.laplace(scale: noiseMultiplier), exact: true)
        case "approximate": return make(.approximate(epsilon: epsilon ?? .infinity, delta: delta ?? 1), exact: true)
        case "sample_and_threshold":
            let cost = try SampleAndThreshold.cost(samplingRate: samplingRate ?? 1, threshold: threshold ?? 0)
            return make(.approximate(epsilon: cost.epsilon, delta: cost.delta), exact: true)
        case "banded_matrix":
            // Only the first `count` rows of C have been released.
            let mechanism = try BandedMatrixMechanism(
                coefficients: band ?? [],
                roundCount: max(1, count),
                minSeparation: minSeparation ?? 1,
                maxParticipations: participationCap > 0 ? participationCap : nil
            )
            return make(.bandedMatrix(mechanism, noiseMultiplier: noiseMultiplier))
        default: throw .unsupportedEvent(event: kind, accountant: "ledger")
        }
    }

    /// Whether a population that begins with this charge is judged by filters from the beginning.
    var startsFiltered: Bool {
        guard let release = try? release(count: 1) else { return false }
        return BudgetArithmetic.startsFiltered(with: release.event, isAdaptive: isAdaptive == true)
    }

    /// Canonical JSON: sorted keys.
    package var canonical: String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        return (try? encoder.encode(self)).map { String(decoding: $0, as: UTF8.self) } ?? ""
    }
}

/// A row about the ledger itself rather than about a release: the budget was set, or a roll-back was acknowledged.
package struct LedgerNote: Codable, Equatable, Sendable {
    /// `budget` or `acknowledgement`.
    package var kind: String
    package var epsilon: Double?
    package var delta: Double?
    package var accountant: String?
    package var previousEpsilon: Double?
    package var reason: String?

    var canonical: String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        return (try? encoder.encode(self)).map { String(decoding: $0, as: UTF8.self) } ?? ""
    }
}
