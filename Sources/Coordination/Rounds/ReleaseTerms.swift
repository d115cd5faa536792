import Aggregation
import DifferentialPrivacy
import Tensors
import WireFormat

/// The numbers of one noised release of a run: its grid, its bounds, and the split of its noise.
struct ReleaseTerms: Sendable {
    /// Of the update itself.
    let grid: NoiseGrid
    /// Policy `adaptive`: how the norm follows its quantile.
    let adaptive: AdaptiveClipping?
    /// Mechanism `banded_matrix`; its `dataGrid` is ``grid``.
    let banded: BandedReleases?
    private let layout: ParameterLayout
    private let isPerLayer: Bool

    /// Prepares a release.
    ///
    /// - Parameters:
    ///   - specification: A run with privacy.
    ///   - layout: Of one update.
    ///   - clippingNorm: C of this round.
    /// - Throws: ``PrivacyError`` where the noise is not proven for these numbers.
    init(
        _ specification: RunSpecification,
        layout: ParameterLayout,
        clippingNorm: Double
    ) throws(PrivacyError) {
        let privacy = specification.privacy
        self.layout = layout
        isPerLayer = privacy.clipping.policy == .perLayer
        let distribution: NoiseDistribution
        switch privacy.mechanism {
        case .gaussian, .bandedMatrix: distribution = .gaussian
        case .laplace: distribution = .laplace
        case .discreteGaussian(let scale): distribution = .discreteGaussian(scale: scale)
        case .gaussianSparseHistogram, .sampleAndThreshold:
            throw .unsupportedEvent(event: privacy.mechanism.name.rawValue, accountant: "ledger")
        }
        adaptive =
            if case .adaptive(let quantile) = privacy.clipping.policy {
                try AdaptiveClipping(privacy, following: quantile, goal: specification.cohort.goal)
            } else { nil }
        banded =
            privacy.isBanded
            ? try BandedReleases(
                band: specification.noiseBand,
                clippingNorm: clippingNorm,
                noiseMultiplier: privacy.noiseMultiplier,
                parameterCount: layout.parameterCount
            ) : nil
        if let banded {
            grid = banded.dataGrid
        } else {
            grid = try NoiseGrid(
                clippingNorm: clippingNorm,
                noiseMultiplier: adaptive?.updateNoiseMultiplier ?? privacy.noiseMultiplier,
                parameterCount: layout.parameterCount,
                isLocal: privacy.mode == .local,
                distribution: distribution
            )
        }
    }

    /// The bounds that are checked exactly: one for the update, or one a tensor with `Σ Cℓ² = C²`.
    var parts: [BoundedSum.Part] {
        let grid = grid
        guard isPerLayer else {
            return [.init(range: 0..<layout.parameterCount) { grid.shrinkFactor(measure: $0) }]
        }
        return zip(layout.tensors, LayerClipping.shares(of: layout)).compactMap { tensor, share in
            let part = grid.part(share: share)
            return layout.range(of: tensor.name).map { range in
                BoundedSum.Part(range: range) { part.shrinkFactor(measure: $0) }
            }
        }
    }
}

extension AdaptiveClipping {
    /// The rule of a run; its first norm is the specification's.
    init(
        _ privacy: RunSpecification.Privacy,
        following quantile: RunSpecification.Privacy.Clipping.Quantile,
        goal: Int
    ) throws(PrivacyError) {
        let z = privacy.noiseMultiplier
        try self.init(
            initialNorm: privacy.clipping.norm,
            targetQuantile: quantile.target,
            learningRate: quantile.learningRate,
            noiseMultiplier: z,
            countNoise: quantile.countNoise ?? Self.defaultCountNoise(cohortSize: goal, noiseMultiplier: z)
        )
    }

    /// The grid of one bit `bᵢ − ½`: sensitivity ½, noise σ_b.
    var countGrid: NoiseGrid {
        get throws(PrivacyError) {
            try NoiseGrid(clippingNorm: 0.5, noiseMultiplier: 2 * countNoise, parameterCount: 1)
        }
    }
}
