/// Noise that a client adds before its update leaves the device (mode `local`).
public enum LocalNoise {
    /// Clips on the integer grid, adds noise, and gives the values back in parameter units.
    ///
    /// One call is one release of (ε, δ)-local differential privacy with neighbouring relation `replace_one` and noise
    /// standard deviation 2·C·z. The same update must never be noised twice: a repeated upload sends the same bytes.
    ///
    /// - Throws: ``PrivacyError``.
    public static func privatize(
        _ update: inout [Float],
        clippingNorm: Double,
        noiseMultiplier: Double
    ) throws(PrivacyError) {
        try privatize(
            &update,
            clippingNorm: clippingNorm,
            noiseMultiplier: noiseMultiplier,
            sampler: IntegerGaussianSampler()
        )
    }

    package static func privatize(
        _ update: inout [Float],
        clippingNorm: Double,
        noiseMultiplier: Double,
        sampler: IntegerGaussianSampler
    ) throws(PrivacyError) {
        let grid = try NoiseGrid(
            clippingNorm: clippingNorm,
            noiseMultiplier: noiseMultiplier,
            parameterCount: update.count,
            isLocal: true
        )
        if let index = update.firstIndex(where: { !$0.isFinite }) { throw .notFinite(index: index) }
        try L2Clipping.clip(&update, norm: clippingNorm)
        var integers = grid.quantize(update)
        try sampler.addNoise(to: &integers)
        update = integers.map { Float(Double($0) * grid.step) }
    }
}
