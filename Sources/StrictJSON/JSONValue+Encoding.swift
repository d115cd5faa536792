/// How the writer turns a Swift value into JSON.
package struct JSONEncodingRules: Sendable {
    /// Whether property names become `snake_case`; dictionary keys never change.
    package var hasSnakeCaseNames: Bool
    /// Whether infinities and NaN become the texts `Infinity`, `-Infinity` and `NaN`; else they are errors.
    package var writesNonFinite: Bool

    package init(hasSnakeCaseNames: Bool = false, writesNonFinite: Bool = false) {
        self.hasSnakeCaseNames = hasSnakeCaseNames
        self.writesNonFinite = writesNonFinite
    }
}

extension JSONValue {
    /// The tree of a value, as its `Encodable` conformance describes it.
    ///
    /// - Throws: `EncodingError` for an integer beyond 64 bits, and for an infinity or NaN unless the rules write it as text; what the
    ///   value throws.
    package init(encoding value: some Encodable, _ rules: JSONEncodingRules = .init()) throws {
        self = try TreeEncoder.tree(value, rules, [])
    }

    /// `snake_case` of a property's name: words begin at capitals, and several capitals in a row are one word.
    package static func snakeCase(_ name: String) -> String {
        let bytes = Array(name.utf8)
        func isUpper(_ place: Int) -> Bool { (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(bytes[place]) }
        func isLower(_ place: Int) -> Bool { (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(bytes[place]) }
        guard bytes.indices.contains(where: isUpper) else { return name }
        var result: [UInt8] = []
        result.reserveCapacity(bytes.count + 4)
        for place in bytes.indices {
            guard isUpper(place) else {
                result.append(bytes[place])
                continue
            }
            // The first of several capitals begins a word, and so does the last one when small letters follow.
            let isFirst = place > 0 && !isUpper(place - 1)
            let isLast = place > 0 && isUpper(place - 1) && place + 1 < bytes.count && isLower(place + 1)
            if isFirst || isLast { result.append(UInt8(ascii: "_")) }
            result.append(bytes[place] | 0x20)
        }
        return String(decoding: result, as: UTF8.self)
    }
}

/// A dictionary whose keys are written as they are.
private protocol NamedValues {
    func tree(_ rules: JSONEncodingRules, _ path: [any CodingKey]) throws -> JSONValue
}

extension Dictionary: NamedValues where Key == String, Value: Encodable {
    fileprivate func tree(_ rules: JSONEncodingRules, _ path: [any CodingKey]) throws -> JSONValue {
        .object(try mapValues { try TreeEncoder.tree($0, rules, path) })
    }
}

/// Collects what one value encodes.
private final class TreeEncoder: Encoder {
    private enum Part {
        case value(JSONValue)
        case nested(TreeEncoder)

        var tree: JSONValue {
            switch self {
            case .value(let value): value
            case .nested(let encoder): encoder.result
            }
        }
    }
    private enum Content {
        case none
        case single(JSONValue)
        case object([String: Part])
        case array([Part])
    }

    let rules: JSONEncodingRules
    let codingPath: [any CodingKey]
    let userInfo: [CodingUserInfoKey: Any] = [:]
    private var content = Content.none

    init(_ rules: JSONEncodingRules, _ path: [any CodingKey]) {
        self.rules = rules
        codingPath = path
    }

    static func tree<Value: Encodable>(
        _ value: Value,
        _ rules: JSONEncodingRules,
        _ path: [any CodingKey]
    ) throws -> JSONValue {
        switch value {
        case let text as String: return .string(text)
        case let number as Int: return .integer(number)
        case let flag as Bool: return .boolean(flag)
        case let number as Double: return try tree(number, rules, path)
        case let value as JSONValue: return value
        case let fields as any NamedValues: return try fields.tree(rules, path)
        default:
            let encoder = TreeEncoder(rules, path)
            try value.encode(to: encoder)
            return encoder.result
        }
    }

    static func tree(_ number: Double, _ rules: JSONEncodingRules, _ path: [any CodingKey]) throws -> JSONValue {
        guard !number.isFinite else { return JSONValue(number) }
        guard rules.writesNonFinite else {
            throw EncodingError.invalidValue(number, .init(codingPath: path, debugDescription: "JSON has no \(number)"))
        }
        return .string(number.isNaN ? "NaN" : number > 0 ? "Infinity" : "-Infinity")
    }

    var result: JSONValue {
        switch content {
        case .none: .null
        case .single(let value): value
        case .object(let fields): .object(fields.mapValues(\.tree))
        case .array(let items): .array(items.map(\.tree))
        }
    }

    func container<Key: CodingKey>(keyedBy type: Key.Type) -> KeyedEncodingContainer<Key> {
        if case .object = content {} else { content = .object([:]) }
        return KeyedEncodingContainer(Fields<Key>(encoder: self))
    }

    func unkeyedContainer() -> any UnkeyedEncodingContainer {
        if case .array = content {} else { content = .array([]) }
        return Items(encoder: self)
    }

    func singleValueContainer() -> any SingleValueEncodingContainer { Single(encoder: self) }

    // MARK: - Scalars

    func scalar<Number: FixedWidthInteger & Encodable>(_ number: Number) throws -> JSONValue {
        guard let integer = Int(exactly: number) else {
            throw EncodingError.invalidValue(
                number,
                .init(codingPath: codingPath, debugDescription: "integers of more than 64 bits are written as text")
            )
        }
        return .integer(integer)
    }

    func scalar(_ number: Double) throws -> JSONValue { try Self.tree(number, rules, codingPath) }

    /// The float's own shortest decimal form: 0.1 as a float is written 0.1, and its double would be 0.10000000149011612.
    func scalar(_ number: Float) throws -> JSONValue { try scalar(Double("\(number)") ?? Double(number)) }

    // MARK: - Containers

    private func set(_ part: Part, _ key: some CodingKey) {
        guard case .object(var fields) = content else { return }
        content = .none
        fields[rules.hasSnakeCaseNames ? JSONValue.snakeCase(key.stringValue) : key.stringValue] = part
        content = .object(fields)
    }

    private func append(_ part: Part) {
        guard case .array(var items) = content else { return }
        content = .none
        items.append(part)
        content = .array(items)
    }

    private var count: Int {
        guard case .array(let items) = content else { return 0 }
        return items.count
    }

    private struct Fields<Key: CodingKey>: KeyedEncodingContainerProtocol {
        let encoder: TreeEncoder
        var codingPath: [any CodingKey] { encoder.codingPath }

        func encodeNil(forKey key: Key) { encoder.set(.value(.null), key) }
        func encode<Value: Encodable>(_ value: Value, forKey key: Key) throws {
            encoder.set(.value(try TreeEncoder.tree(value, encoder.rules, encoder.codingPath + [key])), key)
        }
        func nestedContainer<Nested: CodingKey>(
            keyedBy type: Nested.Type,
            forKey key: Key
        ) -> KeyedEncodingContainer<Nested> { nested(key).container(keyedBy: type) }
        func nestedUnkeyedContainer(forKey key: Key) -> any UnkeyedEncodingContainer { nested(key).unkeyedContainer() }
        func superEncoder() -> any Encoder { nested(SuperKey()) }
        func superEncoder(forKey key: Key) -> any Encoder { nested(key) }

        private func nested(_ key: some CodingKey) -> TreeEncoder {
            let nested = TreeEncoder(encoder.rules, encoder.codingPath + [key])
            encoder.set(.nested(nested), key)
            return nested
        }
    }

    private struct Items: UnkeyedEncodingContainer {
        let encoder: TreeEncoder
        var codingPath: [any CodingKey] { encoder.codingPath }
        var count: Int { encoder.count }

        func encodeNil() { encoder.append(.value(.null)) }
        func encode<Value: Encodable>(_ value: Value) throws {
            encoder.append(.value(try TreeEncoder.tree(value, encoder.rules, encoder.codingPath)))
        }
        func nestedContainer<Nested: CodingKey>(keyedBy type: Nested.Type) -> KeyedEncodingContainer<Nested> {
            nested().container(keyedBy: type)
        }
        func nestedUnkeyedContainer() -> any UnkeyedEncodingContainer { nested().unkeyedContainer() }
        func superEncoder() -> any Encoder { nested() }

        private func nested() -> TreeEncoder {
            let nested = TreeEncoder(encoder.rules, encoder.codingPath)
            encoder.append(.nested(nested))
            return nested
        }
    }

    private struct Single: SingleValueEncodingContainer {
        let encoder: TreeEncoder
        var codingPath: [any CodingKey] { encoder.codingPath }

        private func put(_ value: JSONValue) { encoder.content = .single(value) }

        func encodeNil() { put(.null) }
        func encode(_ value: Bool) { put(.boolean(value)) }
        func encode(_ value: String) { put(.string(value)) }
        func encode(_ value: Double) throws { put(try encoder.scalar(value)) }
        func encode(_ value: Float) throws { put(try encoder.scalar(value)) }
        func encode(_ value: Int) { put(.integer(value)) }
        func encode(_ value: Int8) throws { put(try encoder.scalar(value)) }
        func encode(_ value: Int16) throws { put(try encoder.scalar(value)) }
        func encode(_ value: Int32) throws { put(try encoder.scalar(value)) }
        func encode(_ value: Int64) throws { put(try encoder.scalar(value)) }
        func encode(_ value: UInt) throws { put(try encoder.scalar(value)) }
        func encode(_ value: UInt8) throws { put(try encoder.scalar(value)) }
        func encode(_ value: UInt16) throws { put(try encoder.scalar(value)) }
        func encode(_ value: UInt32) throws { put(try encoder.scalar(value)) }
        func encode(_ value: UInt64) throws { put(try encoder.scalar(value)) }
        func encode<Value: Encodable>(_ value: Value) throws {
            put(try TreeEncoder.tree(value, encoder.rules, encoder.codingPath))
        }
    }

    private struct SuperKey: CodingKey {
        var stringValue: String { "super" }
        var intValue: Int? { nil }
        init() {}
        init?(stringValue: String) {}
        init?(intValue: Int) { nil }
    }
}
