package import DifferentialPrivacy
import Foundation
import StrictJSON
package import WireFormat

/// The event of one charge, as the ledger keeps it: canonical JSON, so that an outsider can judge it again.
package struct PrivacyCharge: Codable, Hashable, Sendable {
    package var kind: ChargeKind
    package var mode: PrivacyMode
    /// z of Gaussian kinds; scale over L1 sensitivity of `laplace`.
    package var noiseMultiplier: Double
    /// Per client in the run; 0 is without limit.
    package var participationCap: Int
    package var relation: NeighbouringRelation
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
    /// Votes that `sample_and_threshold` wants; the noised count that `gaussian_sparse_histogram` wants.
    package var threshold: Double?

    package init(
        kind: ChargeKind = .gaussian,
        mode: PrivacyMode,
        noiseMultiplier: Double,
        participationCap: Int,
        parameterCount: Int
    ) {
        self.kind = kind
        self.mode = mode
        self.noiseMultiplier = noiseMultiplier
        self.participationCap = participationCap
        // A local report may be replaced by any other, and its noise is relative to 2C.
        relation = mode == .local ? .replaceOne : kind.isSampled ? .addRemove : .zeroOut
        self.parameterCount = parameterCount
    }

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
        case .gaussian: return make(.gaussian(noiseMultiplier: noiseMultiplier))
        case .discreteGaussian: return make(.discreteGaussian(noiseMultiplier: noiseMultiplier), exact: true)
        case .poissonGaussian:
            return make(.poissonGaussian(samplingRate: samplingRate ?? 1, noiseMultiplier: noiseMultiplier))
        case .laplace: return make(.laplace(scale: noiseMultiplier), exact: true)
        case .approximate: return make(.approximate(epsilon: epsilon ?? .infinity, delta: delta ?? 1), exact: true)
        case .sampleAndThreshold:
            let cost = try SampleAndThreshold.cost(
                samplingRate: samplingRate ?? 1,
                threshold: Int(exactly: threshold ?? 0) ?? 0
            )
            return make(.approximate(epsilon: cost.epsilon, delta: cost.delta), exact: true)
        case .gaussianSparseHistogram:
            // Infinity stands for a threshold that is chosen after the noise, when nothing is charged yet.
            var release = make(.gaussian(noiseMultiplier: noiseMultiplier))
            if threshold != .infinity {
                release.failureDelta = try GaussianSparseHistogram(
                    noiseMultiplier: noiseMultiplier,
                    threshold: threshold ?? 0
                ).failureDelta
            }
            return release
        case .bandedMatrix:
            // Only the first `count` rows of C have been released.
            let mechanism = try BandedMatrixMechanism(
                coefficients: band ?? [],
                roundCount: max(1, count),
                minSeparation: minSeparation ?? 1,
                maxParticipations: participationCap > 0 ? participationCap : nil
            )
            return make(.bandedMatrix(mechanism, noiseMultiplier: noiseMultiplier))
        }
    }

    /// Releases that one row stands for, at most: what a roll-back lost comes back as one.
    package static let countLimit = 1 << 32
    /// Noised coordinates of one release, at most.
    package static let parameterLimit = 1 << 41

    /// Refuses a charge that no version made, before anything is counted by it: rows come from databases, records and documents that
    /// others wrote.
    ///
    /// - Throws: ``PrivacyError``.
    package func validate() throws(PrivacyError) {
        func require(_ name: String, _ value: Int?, _ range: ClosedRange<Int>) throws(PrivacyError) {
            guard let value, !range.contains(value) else { return }
            throw .invalidParameter(
                name: name,
                value: Double(value),
                allowed: "\(range.lowerBound) to \(range.upperBound)"
            )
        }
        try require("count", count, 1...Self.countLimit)
        try require("participation_cap", participationCap, 0...Self.countLimit)
        try require("parameter_count", parameterCount, 0...Self.parameterLimit)
        try require("min_separation", minSeparation, 0...BandedMatrixMechanism.roundLimit)
        try require("band", band?.count, 1...BandedMatrixMechanism.bandLimit)
        try release(count: count ?? 1).event.validate()
    }

    /// How a population that begins with this charge is judged.
    var start: BudgetStart {
        if kind == .gaussianSparseHistogram { return .thresholded }
        guard let release = try? release(count: 1) else { return .exact }
        return BudgetArithmetic.start(with: release, isAdaptive: isAdaptive == true)
    }

    /// Canonical JSON: sorted keys.
    package var canonical: String {
        (try? JSONValue(encoding: self))?.text ?? ""
    }
}

/// A row about the ledger itself rather than about a release: the budget was set, or a roll-back was acknowledged.
package struct LedgerNote: Codable, Equatable, Sendable {
    package var kind: LedgerNoteKind
    package var epsilon: Double?
    package var delta: Double?
    package var accountant: AccountantChoice?
    package var previousEpsilon: Double?
    package var reason: String?
    /// Of an acknowledgement: heads that the population's ledger had led to before it was rolled back.
    package var lost: [LostLedgerHead]?

    package init(
        kind: LedgerNoteKind,
        epsilon: Double? = nil,
        delta: Double? = nil,
        accountant: AccountantChoice? = nil,
        previousEpsilon: Double? = nil,
        reason: String? = nil,
        lost: [LostLedgerHead]? = nil
    ) {
        self.kind = kind
        self.epsilon = epsilon
        self.delta = delta
        self.accountant = accountant
        self.previousEpsilon = previousEpsilon
        self.reason = reason
        self.lost = lost
    }

    /// Canonical JSON: sorted keys.
    package var canonical: String {
        (try? JSONValue(encoding: self))?.text ?? ""
    }
}
