package import Foundation
import StrictJSON

/// JSON as it goes over the wire: `snake_case` keys, sorted, so that equal values give equal bytes.
package enum WireCoding {
    /// Encodes a body; what has no number in JSON, such as an ε that no accountant bounds, is the text `Infinity`.
    package static func encode<Value: Encodable>(_ value: Value, pretty: Bool = false) throws -> Data {
        let tree = try JSONValue(encoding: value, .init(hasSnakeCaseNames: true, writesNonFinite: true))
        return Data((pretty ? tree.prettyText : tree.text).utf8)
    }

    /// Decodes a body from a peer whose newer fields may be ignored.
    ///
    /// Foundation's decoder also takes what is no JSON: trailing commas, UTF-16, and of a name that comes twice either value. The strict
    /// parser refuses those first.
    ///
    /// - Throws: `DecodingError`: `dataCorrupted` without a path, with the `JSONError`, for what is not strict JSON.
    package static func decode<Value: Decodable>(_ type: Value.Type, from data: Data) throws -> Value {
        do {
            _ = try JSONValue(parsing: Array(data))
        } catch {
            let context = DecodingError.Context(codingPath: [], debugDescription: "\(error)", underlyingError: error)
            throw DecodingError.dataCorrupted(context)
        }
        return try decodeStored(type, from: data)
    }

    /// Decodes what ``encode(_:pretty:)`` of this server wrote, which needs no second look.
    ///
    /// - Throws: `DecodingError`.
    package static func decodeStored<Value: Decodable>(_ type: Value.Type, from data: Data) throws -> Value {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        decoder.nonConformingFloatDecodingStrategy = .convertFromString(
            positiveInfinity: "Infinity",
            negativeInfinity: "-Infinity",
            nan: "NaN"
        )
        return try decoder.decode(type, from: data)
    }
}
