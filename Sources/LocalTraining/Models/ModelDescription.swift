import Foundation

/// What a model is, in words: an architecture's name and its configuration.
///
/// The same text is a run's `model.config` and, with `model_type` for the name, a model directory's `config.json`.
public struct ModelDescription: Equatable, Sendable {
    /// Such as `cifg-lstm`; see ``ModelArchitectures``.
    public var architecture: String
    /// A JSON object.
    public var config: String

    /// Creates a description.
    public init(architecture: String, config: String) {
        self.architecture = architecture
        self.config = config
    }
}

/// A field of a model's configuration that cannot be used.
public struct ModelConfigurationError: Error, Equatable, Sendable, CustomStringConvertible {
    /// A JSON pointer into the configuration, such as `/tokenizer/type`.
    public var pointer: String
    /// What is wrong, and what would be right.
    public var reason: String

    /// Creates an error.
    public init(_ pointer: String, _ reason: String) {
        self.pointer = pointer
        self.reason = reason
    }

    /// One sentence for people.
    public var description: String { "model configuration \(pointer): \(reason)" }
}

/// Reads a configuration strictly: what is missing, out of range or unknown is an error that names the field.
final class ConfigurationReader {
    let pointer: String
    private let fields: [String: Any]
    private var known: Set<String> = []

    convenience init(_ json: String) throws {
        guard let object = try? JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: Any] else {
            throw ModelConfigurationError("", "must be a JSON object")
        }
        self.init(object, pointer: "")
    }

    init(_ fields: [String: Any], pointer: String) {
        self.fields = fields
        self.pointer = pointer
    }

    func error(_ name: String, _ reason: String) -> ModelConfigurationError {
        ModelConfigurationError(pointer + "/" + name, reason)
    }

    /// The raw value; null reads as absent.
    func value(_ name: String) -> Any? {
        known.insert(name)
        guard let value = fields[name], !(value is NSNull) else { return nil }
        return value
    }

    func has(_ name: String) -> Bool { value(name) != nil }

    func integer(_ name: String, default fallback: Int? = nil, in range: ClosedRange<Int>) throws -> Int {
        guard let value = value(name) else {
            if let fallback { return fallback }
            throw error(name, "is required")
        }
        guard let number = Self.number(value), let integer = Int(exactly: number) else {
            throw error(name, "must be a whole number")
        }
        guard range.contains(integer) else {
            throw error(name, "\(integer) is outside \(range.lowerBound) to \(range.upperBound)")
        }
        return integer
    }

    func number(_ name: String, default fallback: Double? = nil, in range: ClosedRange<Double>) throws -> Double {
        guard let value = value(name) else {
            if let fallback { return fallback }
            throw error(name, "is required")
        }
        guard let number = Self.number(value) else { throw error(name, "must be a number") }
        guard range.contains(number) else {
            throw error(name, "\(number) is outside \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    func boolean(_ name: String, default fallback: Bool) throws -> Bool {
        guard let value = value(name) else { return fallback }
        guard let number = value as? NSNumber, Self.isBoolean(number) else {
            throw error(name, "must be true or false")
        }
        return number.boolValue
    }

    func string(_ name: String) throws -> String? {
        guard let value = value(name) else { return nil }
        guard let text = value as? String else { throw error(name, "must be a string") }
        return text
    }

    func choice(_ name: String, of allowed: [String], default fallback: String) throws -> String {
        guard let text = try string(name) else { return fallback }
        guard allowed.contains(text) else {
            throw error(name, "'\(text)' is not one of \(allowed.joined(separator: ", "))")
        }
        return text
    }

    func integers(_ name: String, in range: ClosedRange<Int>) throws -> [Int]? {
        guard let value = value(name) else { return nil }
        guard let items = value as? [Any] else { throw error(name, "must be an array of whole numbers") }
        return try items.map { item in
            guard let number = Self.number(item), let integer = Int(exactly: number), range.contains(integer) else {
                throw error(name, "must hold whole numbers from \(range.lowerBound) to \(range.upperBound)")
            }
            return integer
        }
    }

    func strings(_ name: String) throws -> [String]? {
        guard let value = value(name) else { return nil }
        guard let items = value as? [String] else { throw error(name, "must be an array of strings") }
        return items
    }

    func object(_ name: String) throws -> ConfigurationReader? {
        guard let value = value(name) else { return nil }
        guard let object = value as? [String: Any] else { throw error(name, "must be an object") }
        return ConfigurationReader(object, pointer: pointer + "/" + name)
    }

    func objects(_ name: String) throws -> [ConfigurationReader]? {
        guard let value = value(name) else { return nil }
        guard let items = value as? [[String: Any]] else { throw error(name, "must be an array of objects") }
        return items.enumerated().map { ConfigurationReader($1, pointer: pointer + "/\(name)/\($0)") }
    }

    /// Refuses what nobody asked for.
    func finish() throws {
        for name in fields.keys.sorted() where !known.contains(name) {
            throw error(name, "is not a known field; allowed here: \(known.sorted().joined(separator: ", "))")
        }
    }

    private static func number(_ value: Any) -> Double? {
        guard let number = value as? NSNumber, !isBoolean(number) else { return nil }
        return number.doubleValue
    }

    private static func isBoolean(_ number: NSNumber) -> Bool { String(cString: number.objCType) == "c" }
}
