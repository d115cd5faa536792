import Foundation

/// Texts and tables that are not part of the repository: where they lie beside the checkout, tests use them.
enum SharedData {
    static func path(_ name: String) -> String {
        URL(fileURLWithPath: #filePath).deletingLastPathComponent().path + "/../../../shared/data/" + name
    }

    static func data(_ name: String) -> Data? {
        FileManager.default.contents(atPath: path(name))
    }

    static func text(_ name: String) -> String? { data(name).map { String(decoding: $0, as: UTF8.self) } }

    static func json<Value: Decodable>(_ name: String, as type: Value.Type) throws -> Value? {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try data(name).map { try decoder.decode(type, from: $0) }
    }
}
