package import Foundation

extension JSONValue {
    /// A tree of what Foundation's reader and Swift literals hold: strings, numbers, booleans, arrays, dictionaries with string
    /// keys, and `NSNull`.
    ///
    /// - Returns: `nil` if it holds anything else, or a number that JSON does not have.
    package init?(foundation value: Any) {
        switch value {
        case let value as JSONValue: self = value
        case let text as String: self = .string(text)
        case is NSNull: self = .null
        case let items as [Any]:
            var values: [JSONValue] = []
            for item in items {
                guard let value = JSONValue(foundation: item) else { return nil }
                values.append(value)
            }
            self = .array(values)
        case let fields as [String: Any]:
            var values: [String: JSONValue] = [:]
            for (name, field) in fields {
                guard let value = JSONValue(foundation: field) else { return nil }
                values[name] = value
            }
            self = .object(values)
        default:
            guard let value = Self.scalar(value) else { return nil }
            self = value
        }
    }

    private static func scalar(_ value: Any) -> JSONValue? {
        // The dynamic type decides first: `as?` casts an `NSNumber` to any of these.
        if type(of: value) == Bool.self, let flag = value as? Bool { return .boolean(flag) }
        if type(of: value) == Int.self, let number = value as? Int { return .integer(number) }
        guard let number = value as? NSNumber else { return nil }
        switch String(cString: number.objCType) {
        case "c", "B": return .boolean(number.boolValue)
        case "d", "f": return number.doubleValue.isFinite ? JSONValue(number.doubleValue) : nil
        default:
            return Int(exactly: number.doubleValue) == nil && number.intValue < 0 && number.doubleValue > 0
                ? JSONValue(number.doubleValue) : .integer(number.intValue)
        }
    }
}
