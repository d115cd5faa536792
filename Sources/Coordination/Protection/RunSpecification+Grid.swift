import SecureAggregation
import Tensors
import WireFormat

extension RunSpecification {
    /// What a protected run's terms come to for updates of so many coordinates.
    ///
    /// - Throws: ``CoordinationError`` `protection_impossible` with the reason, for terms that no ring has room for.
    func protectionGrid(coordinateCount: Int) throws(CoordinationError) -> ProtectionGrid? {
        guard let protection else { return nil }
        guard let width = UInt8(exactly: protection.bits).flatMap(RingWidth.init(rawValue:)) else { return nil }
        var scale: Int?
        if case .discreteGaussian(let deviation) = privacy.mechanism { scale = deviation }
        let terms: ProtectionGrid.Terms =
            privacy.mode == .none
            ? .plain(valueBound: aggregation.valueBound, norm: protection.norm.map { UInt64($0) })
            : .gaussian(
                clippingNorm: privacy.clipping.norm,
                noiseMultiplier: privacy.noiseMultiplier,
                scale: scale
            )
        do throws(SecureAggregationError) {
            return try ProtectionGrid(
                terms,
                width: width,
                coordinateCount: coordinateCount,
                maximum: UInt32(clamping: protectedMaximum)
            )
        } catch {
            throw CoordinationError(.unprocessable, "protection_impossible", "protection: \(error.description)")
        }
    }

    /// Refuses a protected run whose updates no ring has room for.
    ///
    /// - Throws: ``CoordinationError`` `protection_impossible`.
    func checkProtection(of layout: ParameterLayout) throws(CoordinationError) {
        // Noise that is still to be found for a target is checked when it is.
        guard privacy.mode == .none || privacy.noiseMultiplier > 0 else { return }
        _ = try protectionGrid(coordinateCount: layout.parameterCount)
    }

    /// The file of a protected run's updates; `nil` without protection.
    func maskedUpdateFile(coordinateCount: Int) -> MaskedUpdateFile? {
        guard let protection, let width = UInt8(exactly: protection.bits).flatMap(RingWidth.init(rawValue:)) else {
            return nil
        }
        return try? MaskedUpdateFile(width: width, coordinateCount: coordinateCount)
    }
}
