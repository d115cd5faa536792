import StrictJSON

/// A bound on what one client counts for: none, a number, or a multiple of the cohort's median, which is known when the round
/// closes.
///
/// In documents the word `none`, a number, or `{"times_median": 10}`.
package enum CohortBound: Equatable, Sendable {
    /// `none`: whatever clients say counts, for those who trust them.
    case off
    /// A number.
    case value(Double)
    /// So many times the cohort's lower median.
    case timesMedian(Double)

    /// The multiple that defaults have.
    package static let defaultMultiple = 10.0
    static let multiples = 1.0...1e6
    private static let offWord = "none"

    /// The bound in a cohort; `nil` where there is none.
    ///
    /// - Parameter median: Of the cohort; not asked where the bound does not need it. `nil` where the cohort has none.
    /// - Returns: In the unit of the number, or of the median.
    package func limit(median: () -> Double?) -> Double? {
        switch self {
        case .off: nil
        case .value(let value): value
        case .timesMedian(let multiple): median().map { $0 * multiple }
        }
    }

    /// Whether the cohort decides.
    package var isRelative: Bool { if case .timesMedian = self { true } else { false } }

    /// A number, for those to whom the median's multiple means nothing.
    package var number: Double? { if case .value(let value) = self { value } else { nil } }
}

extension CohortBound: Codable {
    private enum CodingKeys: String, CodingKey { case timesMedian }

    package init(from decoder: any Decoder) throws {
        if let fields = try? decoder.container(keyedBy: CodingKeys.self) {
            self = .timesMedian(try fields.decode(Double.self, forKey: .timesMedian))
            return
        }
        let value = try decoder.singleValueContainer()
        if let number = try? value.decode(Double.self) {
            self = .value(number)
            return
        }
        guard try value.decode(String.self) == Self.offWord else {
            throw DecodingError.dataCorruptedError(in: value, debugDescription: "neither none nor a number")
        }
        self = .off
    }

    package func encode(to encoder: any Encoder) throws {
        switch self {
        case .off:
            var value = encoder.singleValueContainer()
            try value.encode(Self.offWord)
        case .value(let number):
            var value = encoder.singleValueContainer()
            if let whole = Int(exactly: number) { try value.encode(whole) } else { try value.encode(number) }
        case .timesMedian(let multiple):
            var fields = encoder.container(keyedBy: CodingKeys.self)
            try fields.encode(multiple, forKey: .timesMedian)
        }
    }
}

extension CohortBound {
    /// Reads a bound; `fallback` where the field is absent.
    ///
    /// - Parameters:
    ///   - name: The field.
    ///   - fields: Where it stands.
    ///   - range: What a number may be.
    ///   - isWhole: Whether it is a whole number.
    ///   - fallback: Where the field is absent.
    /// - Returns: The bound; what is wrong is reported, and the fallback returned.
    static func read(
        _ name: String,
        in fields: FieldReader,
        range: ClosedRange<Double>,
        isWhole: Bool = false,
        default fallback: CohortBound
    ) -> CohortBound {
        switch fields.value(name) {
        case nil: return fallback
        case .string(offWord)?: return .off
        case .object?:
            return .timesMedian(fields.object(name) { $0.number("times_median", in: multiples) })
        case .integer?, .number?:
            guard isWhole else { return .value(fields.number(name, in: range)) }
            return .value(Double(fields.integer(name, in: Int(range.lowerBound)...Int(range.upperBound))))
        case let other?:
            let written = if case .string(let text) = other { "'\(text.prefix(40))'" } else { other.kindName }
            fields.report(name, "must be a number, none, or {times_median: m}, not \(written)")
            return fallback
        }
    }
}

extension RunSpecification.Aggregation {
    /// What one client counts for at most, in clauses for operators, where no privacy terms say so.
    package var clientLimits: [String] {
        let weight: String
        switch (weighting, exampleCap) {
        case (.examples, .off): weight = "weighs as many \(weightUnit) as it says (example_cap: none)"
        case (.examples, .value(let cap)): weight = "weighs at most \(Int(cap)) \(weightUnit)"
        case (.examples, .timesMedian(let multiple)):
            weight = "weighs at most \(Self.text(multiple)) times its round's median of \(weightUnit)"
        case (.uniform, _):
            weight = isBuffered ? "weighs by its update's age alone" : "weighs as much as any other"
        }
        let norm: String
        switch normBound ?? .off {
        case .off: norm = "its update may be as long as value_bound of \(Self.text(valueBound)) a coordinate allows"
        case .value(let bound): norm = "its update is scaled down to an L2 norm of \(Self.text(bound))"
        case .timesMedian(let multiple):
            norm = "its update is scaled down to \(Self.text(multiple)) times its round's median L2 norm"
        }
        return [weight, norm]
    }

    private static func text(_ value: Double) -> String { Int(exactly: value).map { "\($0)" } ?? "\(value)" }
}
