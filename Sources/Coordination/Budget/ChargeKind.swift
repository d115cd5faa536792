package import WireFormat

/// What a charge of the ledger is the event of: a mechanism, alone or over a secret sample.
package enum ChargeKind: String, ClosedWord {
    case gaussian, laplace
    case discreteGaussian = "discrete_gaussian"
    case bandedMatrix = "banded_matrix"
    case gaussianSparseHistogram = "gaussian_sparse_histogram"
    /// TrieHH of earlier versions.
    case sampleAndThreshold = "sample_and_threshold"
    /// Gaussian noise over the server's secret coins.
    case poissonGaussian = "poisson_gaussian"
    /// Whatever has an ε and a δ.
    case approximate

    /// What a run with these terms is charged for.
    package init(of privacy: RunSpecification.Privacy) {
        switch privacy.mechanism {
        case .gaussian: self = privacy.isAmplified ? .poissonGaussian : .gaussian
        case .laplace: self = .laplace
        case .discreteGaussian: self = .discreteGaussian
        case .bandedMatrix: self = .bandedMatrix
        case .gaussianSparseHistogram: self = .gaussianSparseHistogram
        case .sampleAndThreshold: self = .sampleAndThreshold
        }
    }

    /// Whether it rests on a draw of the server's own.
    package var isSampled: Bool { self == .poissonGaussian || self == .sampleAndThreshold }
}
