/// A JSON document as a tree, read before its meaning is known.
package enum JSONValue: Sendable, Equatable {
    case null
    case boolean(Bool)
    case integer(Int)
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object([String: JSONValue])

    /// The most values that one document may hold.
    ///
    /// A tree of small values takes ten times the memory of its text.
    package static let countLimit = 4_000_000

    /// Reads JSON text: what RFC 8259 calls JSON and nothing else.
    ///
    /// - Parameters:
    ///   - bytes: The text.
    ///   - countLimit: The most values that it may hold, nested ones included.
    /// - Throws: ``JSONError`` with the line and column of the first wrong byte.
    package init(parsing bytes: [UInt8], countLimit: Int = Self.countLimit) throws(JSONError) {
        var parser = JSONParser(bytes, valueLimit: countLimit)
        self = try parser.document()
    }

    /// A number, as `integer` if it has no fraction and its magnitude is below 9·10¹⁵: doubles hold those exactly, so that writing
    /// and reading it again gives the same value.
    package init(_ number: Double) {
        if let integer = Int(exactly: number), abs(number) < 9e15 {
            self = .integer(integer)
        } else {
            self = .number(number)
        }
    }

    /// A short name of the value's kind, for messages.
    package var kindName: String {
        switch self {
        case .null: "null"
        case .boolean: "a boolean"
        case .integer, .number: "a number"
        case .string: "a string"
        case .array: "an array"
        case .object: "an object"
        }
    }
}
