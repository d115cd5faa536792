/// Reads the fields of a JSON object strictly: wrong types, values outside their range and unknown fields are collected
/// with their JSON pointers, so that one answer names them all.
///
/// Every method returns a value even if the field is wrong, so that reading goes on; `read` then throws and drops the result.
/// `null` is refused and does not stand for a missing field. Serialisers write it for NaN, for a missing key and for an empty line
/// in YAML, and a default in its place would hide the mistake.
package final class FieldReader {
    private final class Findings {
        private(set) var problems: [DocumentError.Problem] = []
        /// Answers of a newer server may have fields that this program does not know.
        let ignoresUnknownFields: Bool
        /// Other programs write null for what they do not set.
        let isConfiguration: Bool
        /// Whether further problems are dropped, because the answer would not name them.
        var isFull: Bool { problems.count > DocumentError.countLimit }

        init(ignoresUnknownFields: Bool = false, isConfiguration: Bool = false) {
            self.ignoresUnknownFields = ignoresUnknownFields
            self.isConfiguration = isConfiguration
        }

        func add(_ pointer: @autoclosure () -> String, _ detail: @autoclosure () -> String) {
            guard !isFull else { return }
            problems.append(.init(pointer: pointer(), detail: detail()))
        }
    }

    private let fields: [String: JSONValue]
    private let pointer: String
    private let findings: Findings
    private var known: Set<String> = []
    private var nullable: Set<String> = []
    private var alternative: (name: String, fields: Set<String>)?

    /// Starts at the document's root.
    package convenience init(_ document: JSONValue) throws(DocumentError) {
        try self.init(document, Findings())
    }

    private convenience init(_ document: JSONValue, _ findings: Findings) throws(DocumentError) {
        guard case .object(let fields) = document else {
            throw DocumentError("", "must be an object, not \(document.kindName)")
        }
        self.init(fields: fields, pointer: "", findings: findings)
    }

    private init(fields: [String: JSONValue], pointer: String, findings: Findings) {
        self.fields = fields
        self.pointer = pointer
        self.findings = findings
    }

    /// Reads a document: runs `body`, refuses unknown fields, and throws all problems together.
    ///
    /// - Throws: ``DocumentError`` with every field that is wrong, missing or unknown.
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

    /// Reads a model's configuration, which another program may have written: null stands for a missing field.
    ///
    /// - Throws: ``DocumentError`` with every field that is wrong, missing or unknown.
    package static func readConfiguration<Result>(
        _ document: JSONValue,
        _ body: (FieldReader) -> Result
    ) throws(DocumentError) -> Result {
        let reader = try FieldReader(document, Findings(isConfiguration: true))
        let result = body(reader)
        reader.finish()
        guard reader.findings.problems.isEmpty else { throw DocumentError(problems: reader.findings.problems) }
        return result
    }

    /// Reads a server's answer: unknown fields are ignored, known fields must fit.
    ///
    /// - Parameters:
    ///   - document: The answer's body.
    ///   - body: Returns the value, or `nil` if it has reported a field.
    /// - Returns: The value.
    /// - Throws: ``DocumentError`` naming every field that does not fit.
    package static func readAnswer<Result>(
        _ document: JSONValue,
        _ body: (FieldReader) -> Result?
    ) throws(DocumentError) -> Result {
        let reader = try FieldReader(document, Findings(ignoresUnknownFields: true))
        let result = body(reader)
        reader.finish()
        guard reader.findings.problems.isEmpty, let result else {
            let problems = reader.findings.problems
            throw problems.isEmpty ? DocumentError("", "does not fit") : DocumentError(problems: problems)
        }
        return result
    }

    /// Records a problem with one field.
    package func report(_ name: String, _ detail: @autoclosure () -> String) {
        findings.add(pointer + "/" + Self.escaped(name), detail())
    }

    /// Records a problem with a field of a nested object, by its path from here.
    package func report(at path: String, _ detail: @autoclosure () -> String) {
        findings.add(pointer + "/" + path, detail())
    }

    /// Whether a field of a nested object, by its path from here, is there and not null.
    package func has(at path: String) -> Bool {
        var value = JSONValue.object(fields)
        for name in path.split(separator: "/") {
            guard case .object(let fields) = value, let next = fields[String(name)], next != .null else { return false }
            value = next
        }
        return true
    }

    /// Whether the field is there and not null.
    package func has(_ name: String) -> Bool {
        guard let value = fields[name] else { return false }
        return value != .null
    }

    /// Allows null for a field; it then stands for a missing one.
    package func allowNull(_ name: String) { nullable.insert(name) }

    /// The field's value unread, for a field of several types; `nil` if it is absent.
    package func value(_ name: String) -> JSONValue? { take(name) }

    /// A nested object unread, for another reader; `nil` if it is absent.
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
    ///
    /// More than `limit` fields are reported, and then any `limit + 1` names are returned.
    package func names(limit: Int) -> [String] {
        if fields.count > limit { findings.add(pointer, "may hold at most \(limit) fields") }
        return fields.keys.prefix(limit + 1).sorted()
    }

    /// Reads fields that are part of this object, under the pointer `path`.
    package func nested<Result>(
        _ path: String,
        _ fields: [String: JSONValue],
        _ body: (FieldReader) -> Result
    ) -> Result {
        let reader = FieldReader(fields: fields, pointer: pointer + "/" + path, findings: findings)
        let result = body(reader)
        reader.finish()
        return result
    }

    /// Whether a field is exactly this text.
    package func isText(_ name: String, _ text: String) -> Bool { fields[name] == .string(text) }

    /// Reads a nested object; an absent one is read as empty.
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

    /// A string of 1 to `lengthLimit` code points.
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
                report(name, lengthLimit == .max ? "must not be empty" : "must have 1 to \(lengthLimit) characters")
            }
            return text
        case let other?:
            report(name, "must be a string, not \(other.kindName)")
            return ""
        }
    }

    /// One of a closed set of words.
    ///
    /// Another word is reported, and the fallback is returned.
    package func choice<Word: RawRepresentable & CaseIterable>(_ name: String, default fallback: Word) -> Word
    where Word.RawValue == String {
        choice(name, among: Array(Word.allCases), default: fallback)
    }

    /// One of some words of a closed set, or a synonym of one.
    package func choice<Word: RawRepresentable>(
        _ name: String,
        among allowed: [Word],
        synonyms: KeyValuePairs<String, Word> = [:],
        default fallback: Word
    ) -> Word where Word.RawValue == String {
        guard let text = word(name) else { return fallback }
        if let word = allowed.first(where: { $0.rawValue == text }) { return word }
        if let word = synonyms.first(where: { $0.key == text })?.value { return word }
        reportWord(name, text, allowed.map(\.rawValue) + synonyms.map(\.key))
        return fallback
    }

    /// One of the names that a table has; `nil` if it is absent.
    ///
    /// Another name is reported.
    package func choice(_ name: String, of names: some Sequence<String>) -> String? {
        guard let text = word(name) else { return nil }
        let names = Array(names)
        guard names.contains(text) else {
            reportWord(name, text, names)
            return nil
        }
        return text
    }

    /// The text of a field that must be a word; `nil` if it is absent, or reported because it is no string.
    private func word(_ name: String) -> String? {
        switch take(name) {
        case nil: return nil
        case .string(let text)?: return text
        case let other?:
            report(name, "must be a string, not \(other.kindName)")
            return nil
        }
    }

    private func reportWord(_ name: String, _ text: String, _ words: [String]) {
        report(name, "'\(text.prefix(200))' is not one of \(words.joined(separator: ", "))")
    }

    /// Says which of several alternatives the object is.
    ///
    /// A field that only other alternatives have is then refused as such.
    ///
    /// - Parameters:
    ///   - name: The alternative, such as `rule median`.
    ///   - foreign: The fields of all alternatives.
    package func isAlternative(_ name: String, fields foreign: Set<String>) {
        alternative = (name, foreign)
    }

    /// A whole number inside a range.
    ///
    /// From 2⁵³ on a number in JSON is read as the nearest double, so that its last digits are lost; it is refused in every range.
    package func integer(_ name: String, default fallback: Int? = nil, in range: ClosedRange<Int>) -> Int {
        switch take(name) {
        case nil: return fallback ?? missing(name, range.lowerBound)
        case .integer(let value)? where range.contains(value): return value
        case .integer(let value)?:
            report(name, "\(value) is outside \(range.lowerBound) to \(range.upperBound)")
        case .number(let value)? where value == value.rounded():
            // The parser reads a number from 9·10¹⁵ on as a real one.
            guard let whole = Int(exactly: value), range.contains(whole) else {
                report(name, "\(value) is outside \(range.lowerBound) to \(range.upperBound)")
                return range.lowerBound
            }
            if whole.magnitude < 1 << 53 { return whole }
            report(name, "\(value) is too large: whole numbers are exact below 9007199254740992 only")
        case .number(let value)?: report(name, "must be a whole number, not \(value)")
        case let other?: report(name, "must be a whole number, not \(other.kindName)")
        }
        return range.lowerBound
    }

    /// A number inside a range; `excludingLower` excludes the range's lower end.
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
        // Sorted, so that the same document has the same answer each time.
        for (key, item) in pairs.sorted(by: { $0.key < $1.key }) {
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
        let texts = items.compactMap(\.stringValue)
        if texts.count < items.count { report(name, "must hold strings only") }
        return texts
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
                findings.add(here, "must be an object, not \(item.kindName)")
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
        guard let value = take(name) else { return missing(name, []) }
        guard case .array(let items) = value, items.count <= countLimit else {
            report(name, "must be an array of at most \(countLimit) whole numbers")
            return []
        }
        let numbers = items.compactMap { item -> Int? in
            switch item {
            case .integer(let value): return range.contains(value) ? value : nil
            case .number(let value):
                return Int(exactly: value).flatMap { range.contains($0) && $0.magnitude < 1 << 53 ? $0 : nil }
            default: return nil
            }
        }
        if numbers.count < items.count {
            report(name, "must hold whole numbers from \(range.lowerBound) to \(range.upperBound)")
        }
        return numbers
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
        if !findings.isConfiguration {
            for name in known.sorted() where fields[name] == .null && !nullable.contains(name) {
                report(name, "must not be null; leave the field out where it is not needed")
            }
        }
        // Only as many as the answer can name are looked at; the dictionary's order decides which.
        let unknown = fields.keys.lazy.filter { name in
            !self.known.contains(name) && (!self.findings.ignoresUnknownFields || self.isForeign(name))
        }.prefix(DocumentError.countLimit + 1).sorted()
        guard !unknown.isEmpty else { return }
        let allowed = known.sorted().joined(separator: ", ")
        for name in unknown {
            if let alternative, isForeign(name) {
                report(name, "has no meaning with \(alternative.name); allowed here: \(allowed)")
            } else {
                report(name, "is not a known field; allowed here: \(allowed)")
            }
        }
    }

    /// Whether a field belongs to another alternative than this object's.
    private func isForeign(_ name: String) -> Bool { alternative?.fields.contains(name) ?? false }

    private static func escaped(_ name: String) -> String {
        name.replacing("~", with: "~0").replacing("/", with: "~1")
    }
}
