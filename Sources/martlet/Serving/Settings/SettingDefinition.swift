/// One setting of the server: its name, what it takes, its default and its meaning.
struct SettingDefinition: Sendable {
    /// What a setting takes.
    enum Kind: Sendable {
        case text
        case path
        case flag
        case list
        case choice([String])
        case integer(ClosedRange<Int>)
        case seconds(ClosedRange<Double>)
        case number(ClosedRange<Double>)
        /// Bytes, plain or as `16KiB`, `4MiB`, `1GiB`.
        case bytes(ClosedRange<Int>)
    }

    /// The name in the file, dots for nesting.
    var key: String
    var kind: Kind
    var fallback: String
    var help: String

    init(_ key: String, _ kind: Kind, _ fallback: String, _ help: String) {
        self.key = key
        self.kind = kind
        self.fallback = fallback
        self.help = help
    }

    /// The environment variable, such as `MARTLET_LIMITS_HEAD_BYTES`.
    var variable: String { "MARTLET_" + key.uppercased().replacing(".", with: "_") }

    /// What is wrong with a value, or `nil`.
    func problem(with value: String) -> String? {
        switch kind {
        case .text, .path, .list: return nil
        case .flag: return ["true", "false"].contains(value) ? nil : "must be true or false, not '\(value)'"
        case .choice(let allowed):
            return allowed.contains(value) ? nil : "must be one of \(allowed.joined(separator: ", ")), not '\(value)'"
        case .integer(let range):
            guard let number = Int(value), range.contains(number) else {
                return "must be a whole number from \(range.lowerBound) to \(range.upperBound), not '\(value)'"
            }
            return nil
        case .seconds(let range), .number(let range):
            guard let number = Double(value), range.contains(number) else {
                return "must be a number from \(range.lowerBound) to \(range.upperBound), not '\(value)'"
            }
            return nil
        case .bytes(let range):
            guard let count = Self.byteCount(value), range.contains(count) else {
                return "must be \(range.lowerBound) to \(range.upperBound) bytes (16KiB, 4MiB, …), not '\(value)'"
            }
            return nil
        }
    }

    /// The number that `16KiB` stands for.
    static func byteCount(_ text: String) -> Int? {
        for (suffix, shift) in [("KiB", 10), ("MiB", 20), ("GiB", 30)] where text.hasSuffix(suffix) {
            guard let number = Int(text.dropLast(3)), number >= 0, number < 1 << 30 else { return nil }
            return number << shift
        }
        return Int(text)
    }
}
