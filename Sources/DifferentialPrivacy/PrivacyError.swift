/// Why a privacy mechanism or an accountant refuses.
public enum PrivacyError: Error, Equatable, Sendable {
    /// A parameter is outside the range for which the mechanism is proven.
    case invalidParameter(name: String, value: Double, allowed: String)
    /// A value is NaN or infinite; such an update is refused whole, never clipped.
    case notFinite(index: Int)
    /// The vector is too long for the sampler's guarantee at this noise multiplier.
    case dimensionTooLarge(parameterCount: Int, limit: Int)
    /// The system's random source failed, or the cipher did.
    case randomSourceFailed
    /// The accountant has no sound rule for this event.
    case unsupportedEvent(event: String, accountant: String)
    /// No noise multiplier up to `limit`, where the search ends, meets the target.
    case unreachableTarget(epsilon: Double, delta: Double, limit: Double)
    /// The answer needs more arithmetic than the limit of ``LossAllowance``.
    case tooCostly(cells: Int, limit: Int)
}

extension PrivacyError {
    /// Whether the question was refused because of the arithmetic that its answer needs.
    public var isTooCostly: Bool { if case .tooCostly = self { true } else { false } }
}

extension PrivacyError: CustomStringConvertible {
    /// One sentence for people.
    public var description: String {
        switch self {
        case .invalidParameter(let name, let value, let allowed): "\(name) is \(value); allowed is \(allowed)"
        case .notFinite(let index): "the value at index \(index) is NaN or infinite"
        case .dimensionTooLarge(let count, let limit):
            "\(count) parameters are more than the \(limit) for which the noise is proven at this noise multiplier"
        case .randomSourceFailed: "the system's random source failed"
        case .unsupportedEvent(let event, let accountant):
            "the \(accountant) accountant has no sound rule for the event \(event)"
        case .unreachableTarget(let epsilon, let delta, let limit):
            "no noise multiplier up to \(Int(limit)) meets epsilon \(epsilon) at delta \(delta)"
        case .tooCostly(let cells, let limit):
            "it takes too much arithmetic by loss distributions, \(Self.millions(cells)) million cells where \(Self.millions(limit)) "
                + "million are allowed: give the noise multiplier in place of a target, fewer rounds, or another accountant"
        }
    }
}

extension PrivacyError {
    /// Millions with one digit after the point.
    private static func millions(_ cells: Int) -> Double { (Double(cells) / 100_000).rounded(.up) / 10 }
}

/// Range checks shared by mechanisms and accountants.
enum Require {
    static func delta(_ value: Double) throws(PrivacyError) {
        guard value > 0, value < 1 else {
            throw .invalidParameter(name: "delta", value: value, allowed: "more than 0 and less than 1")
        }
    }

    static func positive(_ name: String, _ value: Double) throws(PrivacyError) {
        guard value > 0, value.isFinite else {
            throw .invalidParameter(name: name, value: value, allowed: "more than 0 and finite")
        }
    }

    /// Requires a noise multiplier or a scale for which curves can be computed.
    static func noise(_ name: String, _ value: Double) throws(PrivacyError) {
        guard value >= 1e-4, value <= 1e12 else {
            throw .invalidParameter(name: name, value: value, allowed: "1e-4 to 1e12")
        }
    }

    static func samplingRate(_ value: Double) throws(PrivacyError) {
        guard value >= 1e-15, value <= 1 else {
            throw .invalidParameter(name: "sampling_rate", value: value, allowed: "1e-15 to 1")
        }
    }
}
