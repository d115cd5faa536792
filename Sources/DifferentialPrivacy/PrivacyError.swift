/// Why a privacy mechanism or an accountant refused.
public enum PrivacyError: Error, Equatable, Sendable {
    /// A parameter is outside the range for which the mechanism is proven.
    case invalidParameter(name: String, value: Double, allowed: String)
    /// A value is NaN or infinite; such an update is refused whole, never clipped.
    case notFinite(index: Int)
    /// The vector is too long for the sampler's guarantee at this noise multiplier.
    case dimensionTooLarge(parameterCount: Int, limit: Int)
    /// The system's random source failed, or the cipher did.
    case randomSourceFailed
}
