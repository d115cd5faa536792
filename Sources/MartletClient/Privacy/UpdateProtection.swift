import DifferentialPrivacy
import Tensors
import WireFormat

/// What a run's privacy terms do to an update on the device: the bound, and in mode `local` the noise.
///
/// A device does not do less than it is asked: terms that it does not know end the assignment.
struct UpdateProtection: Sendable {
    private let privacy: RunSpecification.Privacy
    private let distribution: NoiseDistribution

    /// Reads the terms; `nil` where nothing is clipped: mode `none`, and TrieHH's votes.
    ///
    /// - Throws: ``ClientError`` with code `model_mismatch` for a mode, mechanism or policy that this version does not know.
    init?(_ privacy: RunSpecification.Privacy) throws {
        guard privacy.addsNoise else { return nil }
        guard ["central", "local"].contains(privacy.mode) else { throw Self.unknown("privacy mode", privacy.mode) }
        guard let distribution = NoiseDistribution(mechanism: privacy.mechanism, scale: privacy.noiseScale) else {
            throw Self.unknown("mechanism", privacy.mechanism)
        }
        guard ["flat", "per_layer", "l1", "adaptive"].contains(privacy.clipping.policy) else {
            throw Self.unknown("clipping policy", privacy.clipping.policy)
        }
        self.privacy = privacy
        self.distribution = distribution
    }

    private static func unknown(_ what: String, _ name: String) -> ClientError {
        ClientError(code: "model_mismatch", message: "this client does not know the \(what) '\(name)'")
    }

    /// Clips the update.
    ///
    /// - Returns: Whether its norm was within the bound before: data of the client, for policy `adaptive` only.
    /// - Throws: ``PrivacyError/notFinite(index:)``.
    func clip(_ update: inout ParameterVector) throws(PrivacyError) -> Bool {
        let norm = privacy.clipping.norm
        switch privacy.clipping.policy {
        case "per_layer":
            try LayerClipping.clip(&update.values, layout: update.layout, norm: norm)
            return true
        case "l1":
            try L1Clipping.clip(&update.values, norm: norm)
            return true
        default: return try L2Clipping.clip(&update.values, norm: norm) <= norm
        }
    }

    /// Adds the noise of mode `local`; once for each update.
    ///
    /// - Throws: ``PrivacyError``.
    func addLocalNoise(_ update: inout ParameterVector) throws(PrivacyError) {
        guard privacy.mode == "local" else { return }
        try LocalNoise.privatize(
            &update.values,
            clippingNorm: privacy.clipping.norm,
            noiseMultiplier: privacy.noiseMultiplier,
            distribution: distribution
        )
    }
}
