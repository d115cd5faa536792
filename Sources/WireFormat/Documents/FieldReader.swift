package import StrictJSON

/// Reads the fields of a JSON object strictly: wrong types, values outside their range and unknown fields are collected
/// with their JSON pointers, so that one answer names them all.
///
/// `null` is not the same as a field that is left out: it is what serialisers make of NaN, of a missing key and of an empty
/// line in YAML, and a default in its place would be a silent surprise.
package final class FieldReader {
    private final class Findings {
        var problems: [DocumentError.Problem] = []
    }

    private let fields: [String: JSONValue]
    private let pointer: String
    private let findings: Findings
    private var known: Set<String> = []
    private var nullable: Set<String> = []

    /// Starts at the document's root.
    package convenience init(_ document: JSONValue) throws(DocumentError) {
        guard case .object(let fields) = document else {
            throw DocumentError("", "must be an object, not \(document.kindName)")
        }
        self.init(fields: fields, pointer: "", findings: Findings())
    }

    private init(fields: [String: JSONValue], pointer: String, findings: Findings) {
        self.fields = fields
        self.pointer = pointer
        self.findings = findings
    }

    /// The document's reading: runs `body`, refuses unknown fields, and throws everything that was found.
    package static func read<Result>(
        _ document: JSONValue,
        _ body: (FieldReader) -> Result
    ) throws(DocumentError) -> Result {
        let reader = try FieldReader(document)
        let result = body(reader)
        reader.finish()
        guard reader.findings.problems.isEmpty else { throw DocumentError(problems: reader.findings.problems) }
        return result
    }

    /// Notes a problem with one field.
    package func report(_ name: String, _ detail: String) {
        findings.problems.append(.init(pointer: pointer + "/" + Self.escaped(name), detail: detail))
    }

    /// Whether the field is there and not null.
    package func has(_ name: String) -> Bool {
        guard let value = fields[name] else { return false }
        return value != .null
    }

    /// Lets a field be null, which then means the same as its absence.
    package func allowNull(_ name: String) { nullable.insert(name) }

    /// A nested object as it stands, for a reader of its own; `nil` when it is absent.
    package func rawObject(_ name: String) -> JSONValue? {
        switch take(name) {
        case nil: return nil
        case .object(let fields)?: return .object(fields)
        case let other?:
            report(name, "must be an object, not \(other.kindName)")
            return nil
        }
    }

    /// The names of all fields, sorted.
    package var names: [String] { fields.keys.sorted() }

    /// A nested object; absent reads as an empty one.
    package func object<Result>(_ name: String, _ body: (FieldReader) -> Result) -> Result {
        var nested: [String: JSONValue] = [:]
        switch take(name) {
        case .object(let fields): nested = fields
        case nil: break
        case let other?: report(name, "must be an object, not \(other.kindName)")
        }
        let reader = FieldReader(fields: nested, pointer: pointer + "/" + Self.escaped(name), findings: findings)
        let result = body(reader)
        reader.finish()
        return result
    }

    /// A string; empty ones are refused.
    package func string(_ name: String, default fallback: String? = nil, lengthLimit: Int = 200) -> String {
        optionalString(name, lengthLimit: lengthLimit) ?? fallback ?? missing(name, "")
    }

    /// A string that may be absent.
    package func optionalString(_ name: String, lengthLimit: Int = 200) -> String? {
        switch take(name) {
        case nil: return nil
        case .string(let text)?:
            // Code points, as `maxLength` of a JSON schema counts them.
            if text.isEmpty || text.unicodeScalars.count > lengthLimit {
                report(name, "must have 1 to \(lengthLimit) characters")
            }
            return text
        case let other?:
            report(name, "must be a string, not \(other.kindName)")
            return ""
        }
    }

    /// One of a closed set of words.
    package func choice(_ name: String, of allowed: [String], default fallback: String) -> String {
        guard has(name) else {
            known.insert(name)
            return fallback
        }
        let text = string(name)
        guard allowed.contains(text) else {
            report(name, "'\(text)' is not one of \(allowed.joined(separator: ", "))")
            return fallback
        }
        return text
    }

    /// A whole number inside a range.
    package func integer(_ name: String, default fallback: Int? = nil, in range: ClosedRange<Int>) -> Int {
        switch take(name) {
        case nil: return fallback ?? missing(name, range.lowerBound)
        case .integer(let value)? where range.contains(value): return value
        case .integer(let value)?:
            report(name, "\(value) is outside \(range.lowerBound) to \(range.upperBound)")
        case let other?: report(name, "must be a whole number, not \(other.kindName)")
        }
        return range.lowerBound
    }

    /// A number inside a range; `above` excludes the lower end.
    package func number(
        _ name: String,
        default fallback: Double? = nil,
        in range: ClosedRange<Double>,
        excludingLower: Bool = false
    ) -> Double {
        let value: Double
        switch take(name) {
        case nil: return fallback ?? missing(name, range.lowerBound)
        case .integer(let whole)?: value = Double(whole)
        case .number(let real)?: value = real
        case let other?:
            report(name, "must be a number, not \(other.kindName)")
            return range.upperBound
        }
        guard range.contains(value), !(excludingLower && value == range.lowerBound) else {
            let lower = excludingLower ? "more than \(range.lowerBound)" : "\(range.lowerBound)"
            report(name, "\(value) is outside \(lower) to \(range.upperBound)")
            return range.upperBound
        }
        return value
    }

    /// A number that may be absent.
    package func optionalNumber(_ name: String, in range: ClosedRange<Double>) -> Double? {
        guard has(name) else {
            known.insert(name)
            return nil
        }
        return number(name, in: range)
    }

    /// A whole number that may be absent.
    package func optionalInteger(_ name: String, in range: ClosedRange<Int>) -> Int? {
        guard has(name) else {
            known.insert(name)
            return nil
        }
        return integer(name, in: range)
    }

    /// A number that may be absent.
    package func optionalNumber(_ name: String, in range: ClosedRange<Double>, excludingLower: Bool = false) -> Double?
    {
        guard has(name) else {
            known.insert(name)
            return nil
        }
        return number(name, in: range, excludingLower: excludingLower)
    }

    /// True or false.
    package func boolean(_ name: String, default fallback: Bool) -> Bool {
        switch take(name) {
        case nil: return fallback
        case .boolean(let value)?: return value
        case let other?:
            report(name, "must be true or false, not \(other.kindName)")
            return fallback
        }
    }

    /// An object of short strings, such as labels.
    package func strings(_ name: String, countLimit: Int = 32) -> [String: String] {
        guard let value = take(name) else { return [:] }
        guard case .object(let pairs) = value, pairs.count <= countLimit else {
            report(name, "must be an object of at most \(countLimit) strings")
            return [:]
        }
        var result: [String: String] = [:]
        for (key, item) in pairs {
            guard case .string(let text) = item, text.unicodeScalars.count <= 200, key.unicodeScalars.count <= 100
            else {
                report(name, "'\(key.prefix(40))' must be a string of at most 200 characters")
                continue
            }
            result[key] = text
        }
        return result
    }

    /// An array of strings.
    package func stringList(_ name: String, countLimit: Int = 1000) -> [String]? {
        guard let value = take(name) else { return nil }
        guard case .array(let items) = value, items.count <= countLimit else {
            report(name, "must be an array of at most \(countLimit) strings")
            return nil
        }
        return items.compactMap { item in
            if case .string(let text) = item { return text }
            report(name, "must hold strings only")
            return nil
        }
    }

    /// An array of objects, each read by `body`.
    package func objects<Result>(_ name: String, countLimit: Int, _ body: (FieldReader) -> Result) -> [Result] {
        guard let value = take(name) else { return [] }
        guard case .array(let items) = value, items.count <= countLimit else {
            report(name, "must be an array of at most \(countLimit) objects")
            return []
        }
        return items.enumerated().compactMap { index, item in
            let here = pointer + "/" + Self.escaped(name) + "/\(index)"
            guard case .object(let fields) = item else {
                findings.problems.append(.init(pointer: here, detail: "must be an object, not \(item.kindName)"))
                return nil
            }
            let reader = FieldReader(fields: fields, pointer: here, findings: findings)
            let result = body(reader)
            reader.finish()
            return result
        }
    }

    /// An array of whole numbers.
    package func integers(_ name: String, countLimit: Int, in range: ClosedRange<Int>) -> [Int] {
        guard case .array(let items)? = take(name), items.count <= countLimit else {
            report(name, "must be an array of at most \(countLimit) whole numbers")
            return []
        }
        return items.compactMap { item in
            if case .integer(let value) = item, range.contains(value) { return value }
            report(name, "must hold whole numbers from \(range.lowerBound) to \(range.upperBound)")
            return nil
        }
    }

    // MARK: -

    private func take(_ name: String) -> JSONValue? {
        known.insert(name)
        guard let value = fields[name], value != .null else { return nil }
        return value
    }

    private func missing<Value>(_ name: String, _ placeholder: Value) -> Value {
        if fields[name] == nil { report(name, "is required") }
        return placeholder
    }

    private func finish() {
        for name in known.sorted() where fields[name] == .null && !nullable.contains(name) {
            report(name, "must not be null; leave the field out where it is not needed")
        }
        for name in fields.keys.sorted() where !known.contains(name) {
            report(name, "is not a known field; allowed here: \(known.sorted().joined(separator: ", "))")
        }
    }

    private static func escaped(_ name: String) -> String {
        name.replacing("~", with: "~0").replacing("/", with: "~1")
    }
}
