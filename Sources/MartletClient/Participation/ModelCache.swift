import Crypto
import Foundation
import Tensors

/// Models by their hash, fetched once whatever the number of virtual clients that ask at the same time.
public actor ModelCache {
    private let directory: String
    private var loading: [String: Task<ParameterVector, any Error>] = [:]
    private var order: [String] = []
    /// Bytes that were downloaded.
    public private(set) var bytesDown = 0
    private static let heldCount = 3

    /// Keeps files in a directory, made where it is missing.
    ///
    /// - Throws: The file system's error.
    public init(directory: String) throws {
        self.directory = directory
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    }

    /// The model with this hash.
    func model(sha256: String, fetch: @escaping @Sendable (String) async throws -> Void) async throws -> ParameterVector
    {
        if let task = loading[sha256] { return try await task.value }
        let path = directory + "/" + sha256 + ".safetensors"
        let task = Task { () throws -> ParameterVector in
            if !FileManager.default.fileExists(atPath: path) {
                let partial = path + ".part-\(UUID().uuidString)"
                defer { try? FileManager.default.removeItem(atPath: partial) }
                try await fetch(partial)
                let data = try Data(contentsOf: URL(fileURLWithPath: partial), options: .mappedIfSafe)
                let actual = Self.hexadecimal(SHA256.hash(data: data))
                guard actual == sha256 else {
                    throw ClientError(code: "digest_mismatch", message: "the downloaded model has SHA-256 \(actual)")
                }
                self.note(data.count)
                try FileManager.default.moveItem(atPath: partial, toPath: path)
            }
            return try SafetensorsFile(path: path).readAll()
        }
        loading[sha256] = task
        order.append(sha256)
        do {
            let model = try await task.value
            while order.count > Self.heldCount { forget(order[0]) }
            return model
        } catch {
            if let index = order.firstIndex(of: sha256) { order.remove(at: index) }
            loading[sha256] = nil
            throw error
        }
    }

    /// A small file with this hash, such as a tokeniser.
    func document(sha256: String, fetch: @Sendable () async throws -> Data) async throws -> Data {
        let path = directory + "/" + sha256 + ".json"
        if let known = FileManager.default.contents(atPath: path) { return known }
        let data = try await fetch()
        let actual = Self.hexadecimal(SHA256.hash(data: data))
        guard actual == sha256 else {
            throw ClientError(code: "digest_mismatch", message: "the downloaded document has SHA-256 \(actual)")
        }
        note(data.count)
        try data.write(to: URL(fileURLWithPath: path), options: .atomic)
        return data
    }

    private static func hexadecimal(_ digest: SHA256.Digest) -> String {
        digest.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    private func note(_ count: Int) { bytesDown += count }

    private func forget(_ sha256: String) {
        order.removeAll { $0 == sha256 }
        loading[sha256] = nil
        try? FileManager.default.removeItem(atPath: directory + "/" + sha256 + ".safetensors")
    }
}
