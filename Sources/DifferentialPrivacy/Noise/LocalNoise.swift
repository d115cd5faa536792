/// Noise that a client adds before its update leaves the device (mode `local`).
public enum LocalNoise {
    /// Clips an update, rounds it to the integer grid, adds noise, and returns it in parameter units.
    ///
    /// One call is one release of (ε, δ)-local differential privacy with neighbouring relation `replace_one` and noise of
    /// scale 2·C·z. With Laplace noise it is ε-local, and C bounds the L1 norm. The same update must never be noised twice: a repeated
    /// upload sends the same bytes.
    ///
    /// - Parameters:
    ///   - update: Shape `[parameterCount]`, parameter units; the noised values on return.
    ///   - clippingNorm: C, in parameter units, more than 0.
    ///   - noiseMultiplier: z, from 0.1 to 10,000.
    ///   - distribution: The noise's distribution.
    /// - Throws: ``PrivacyError``.
    public static func privatize(
        _ update: inout [Float],
        clippingNorm: Double,
        noiseMultiplier: Double,
        distribution: NoiseDistribution = .gaussian
    ) throws(PrivacyError) {
        try privatize(
            &update,
            clippingNorm: clippingNorm,
            noiseMultiplier: noiseMultiplier,
            distribution: distribution
        ) { sums, grid throws(PrivacyError) in try grid.addNoise(to: &sums) }
    }

    package static func privatize(
        _ update: inout [Float],
        clippingNorm: Double,
        noiseMultiplier: Double,
        distribution: NoiseDistribution = .gaussian,
        addNoise: (inout [Int64], NoiseGrid) throws(PrivacyError) -> Void
    ) throws(PrivacyError) {
        let grid = try NoiseGrid(
            clippingNorm: clippingNorm,
            noiseMultiplier: noiseMultiplier,
            parameterCount: update.count,
            isLocal: true,
            distribution: distribution
        )
        if let index = update.firstIndex(where: { !$0.isFinite }) { throw .notFinite(index: index) }
        switch distribution.norm {
        case .l1: try L1Clipping.clip(&update, norm: clippingNorm)
        case .l2: try L2Clipping.clip(&update, norm: clippingNorm)
        }
        var integers = grid.quantize(update)
        try addNoise(&integers, grid)
        update = integers.map { Float(Double($0) * grid.step) }
    }
}
