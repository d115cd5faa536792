/// What a value is, for readers that take documents of other programs field by field; ``FieldReader`` reads our own.
extension JSONValue {
    /// A field of an object; `nil` if this is no object, or the field is absent or null.
    package func field(_ name: String) -> JSONValue? {
        guard case .object(let fields) = self, let value = fields[name], value != .null else { return nil }
        return value
    }

    package var objectValue: [String: JSONValue]? { if case .object(let fields) = self { fields } else { nil } }

    package var arrayValue: [JSONValue]? { if case .array(let items) = self { items } else { nil } }

    package var stringValue: String? { if case .string(let text) = self { text } else { nil } }

    package var booleanValue: Bool? { if case .boolean(let flag) = self { flag } else { nil } }

    /// A whole number below 9·10¹⁵, however it is written.
    package var integerValue: Int? { if case .integer(let number) = self { number } else { nil } }

    /// A number.
    package var numberValue: Double? {
        switch self {
        case .integer(let number): Double(number)
        case .number(let number): number
        default: nil
        }
    }
}
