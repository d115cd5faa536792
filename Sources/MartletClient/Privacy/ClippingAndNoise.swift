import DifferentialPrivacy
import MartletTransport
import Tensors
import WireFormat

/// What a run's privacy terms do to an update on the device: it is clipped, and in mode `local` noised.
///
/// A device does not do less than it is asked: an assignment with terms that it does not know is refused when it is read.
struct ClippingAndNoise: Sendable {
    private let privacy: RunSpecification.Privacy
    private let distribution: NoiseDistribution

    /// Reads the terms; `nil` where nothing is clipped: mode `none`, and votes, which the server noises together.
    ///
    /// - Throws: `ClientError` with code `model_mismatch` for votes that nobody noises.
    init?(_ privacy: RunSpecification.Privacy) throws {
        guard !privacy.areVotes || privacy.mode == .central else {
            throw ClientError(mismatch: "votes are not protected in mode \(privacy.mode)")
        }
        guard privacy.addsNoise else { return nil }
        switch privacy.mechanism {
        case .gaussian, .bandedMatrix: distribution = .gaussian
        case .laplace: distribution = .laplace
        case .discreteGaussian(let scale): distribution = .discreteGaussian(scale: scale)
        case .gaussianSparseHistogram, .sampleAndThreshold: return nil
        }
        self.privacy = privacy
    }

    /// Clips the update.
    ///
    /// - Returns: Whether its norm was within the bound before: data of the client, for policy `adaptive` only.
    /// - Throws: ``PrivacyError/notFinite(index:)``.
    func clip(_ update: inout ParameterVector) throws(PrivacyError) -> Bool {
        let norm = privacy.clipping.norm
        switch privacy.clipping.policy {
        case .perLayer:
            try LayerClipping.clip(&update.values, layout: update.layout, norm: norm)
            return true
        case .l1:
            try L1Clipping.clip(&update.values, norm: norm)
            return true
        case .flat, .adaptive: return try L2Clipping.clip(&update.values, norm: norm) <= norm
        }
    }

    /// Adds the noise of mode `local`; once for each update.
    ///
    /// - Throws: ``PrivacyError``.
    func addLocalNoise(_ update: inout ParameterVector) throws(PrivacyError) {
        guard privacy.mode == .local else { return }
        try LocalNoise.privatize(
            &update.values,
            clippingNorm: privacy.clipping.norm,
            noiseMultiplier: privacy.noiseMultiplier,
            distribution: distribution
        )
    }
}
