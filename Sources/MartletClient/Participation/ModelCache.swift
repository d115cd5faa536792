import Crypto
import Foundation
import Tensors
import UpdateCompression
import WireFormat

/// Models by their hash, fetched once whatever the number of virtual clients that ask at the same time, and not again by
/// the next process.
///
/// The models used last are kept: `memoryCount` of them in memory, `fileCount` as files. A file is hashed before it is
/// believed.
public actor ModelCache {
    private let directory: String
    private var loading: [String: Task<ParameterVector, any Error>] = [:]
    /// Names of files, without their extension; the one used last at the end.
    private var order: [String]
    /// Bytes that were downloaded.
    public private(set) var bytesDown = 0
    /// Models held in memory.
    static let memoryCount = 3
    /// Models kept as files.
    static let fileCount = 4
    /// Seconds after which nobody goes on with a download that was cut.
    private static let partialLifetime = 86_400.0
    private static let suffix = ".safetensors"

    /// Keeps files in a directory, made where it is missing; what an earlier process left there is used.
    ///
    /// - Throws: The file system's error.
    public init(directory: String) throws {
        self.directory = directory
        let manager = FileManager.default
        try manager.createDirectory(atPath: directory, withIntermediateDirectories: true)
        func age(_ name: String) -> Date {
            (try? manager.attributesOfItem(atPath: directory + "/" + name)[.modificationDate] as? Date) ?? .distantPast
        }
        for name in try manager.contentsOfDirectory(atPath: directory)
        where name.contains(Self.suffix + ".part") && -age(name).timeIntervalSinceNow > Self.partialLifetime {
            try? manager.removeItem(atPath: directory + "/" + name)
        }
        order = try manager.contentsOfDirectory(atPath: directory).filter { $0.hasSuffix(Self.suffix) }
            .map { (name: $0, age: age($0)) }.sorted { ($0.age, $0.name) < ($1.age, $1.name) }
            .map { String($0.name.dropLast(Self.suffix.count)) }
    }

    /// A model's tensors, from memory, the disk, or the server.
    ///
    /// - Parameters:
    ///   - reference: The model, and how it is written on its way.
    ///   - layout: Its tensors; needed where it is not sent as F32.
    ///   - fetch: Brings the file to a path, where its beginning may lie already, and gives the hash that the server names.
    /// - Returns: The tensors.
    /// - Throws: ``ClientError`` with code `digest_mismatch`, or what `fetch` throws.
    func model(
        _ reference: AssignmentBody.Model,
        layout: ParameterLayout?,
        fetch: @escaping @Sendable (String) async throws -> String?
    ) async throws -> ParameterVector {
        let name = reference.sha256 + (reference.encoding.map { "." + $0 } ?? "")
        touch(name)
        if let task = loading[name] { return try await task.value }
        let path = directory + "/" + name + Self.suffix
        let task = Task { () throws -> ParameterVector in
            if try !Self.isWhole(path, reference) {
                let partial = try PartialFile(path)
                let actual = try await self.download(reference, to: partial, fetch)
                if reference.encoding != nil { try Data(actual.utf8).write(to: Self.sidecar(path), options: .atomic) }
                // Over whatever was there and was not whole.
                guard rename(partial.path, path) == 0 else {
                    throw ClientError(code: "storage", message: "cannot write \(path)")
                }
            }
            return try Self.read(path, reference, layout)
        }
        loading[name] = task
        do {
            let model = try await task.value
            tidy()
            return model
        } catch {
            if loading[name] == task { loading[name] = nil }
            throw error
        }
    }

    /// Fetches a file, going on with what an earlier attempt has left.
    ///
    /// - Returns: Its hash, which is what it should be.
    private func download(
        _ reference: AssignmentBody.Model,
        to partial: PartialFile,
        _ fetch: @Sendable (String) async throws -> String?
    ) async throws -> String {
        while true {
            let kept = partial.byteCount
            let announced = try await fetch(partial.path)
            let actual = try FileDigest.sha256(partial.path).hexadecimal
            // A variant's hash comes with it; the model's own is part of the assignment.
            if actual == (reference.encoding == nil ? reference.sha256 : announced) {
                note(partial.byteCount - min(kept, partial.byteCount))
                return actual
            }
            partial.empty()
            // The beginning may have been another file's, or damaged: once more from the start.
            guard kept > 0 else {
                throw ClientError(code: "digest_mismatch", message: "the downloaded model has SHA-256 \(actual)")
            }
        }
    }

    /// A small file with this hash, such as a tokeniser.
    func document(sha256: String, fetch: @Sendable () async throws -> Data) async throws -> Data {
        let path = directory + "/" + sha256 + ".json"
        if let known = FileManager.default.contents(atPath: path),
            SHA256.hash(data: known).hexadecimal == sha256
        {
            return known
        }
        let data = try await fetch()
        let actual = SHA256.hash(data: data).hexadecimal
        guard actual == sha256 else {
            throw ClientError(code: "digest_mismatch", message: "the downloaded document has SHA-256 \(actual)")
        }
        note(data.count)
        try data.write(to: URL(fileURLWithPath: path), options: .atomic)
        return data
    }

    // MARK: - Files

    /// Whether a file is there and is what it was when it arrived.
    private static func isWhole(_ path: String, _ reference: AssignmentBody.Model) throws -> Bool {
        guard FileManager.default.fileExists(atPath: path) else { return false }
        let known =
            reference.encoding == nil ? reference.sha256 : try? String(contentsOf: sidecar(path), encoding: .utf8)
        return try FileDigest.sha256(path).hexadecimal == known
    }

    /// Where a variant's hash is kept.
    private static func sidecar(_ path: String) -> URL { URL(fileURLWithPath: path + ".sha256") }

    private static func read(
        _ path: String,
        _ reference: AssignmentBody.Model,
        _ layout: ParameterLayout?
    ) throws -> ParameterVector {
        guard reference.encoding != nil, let layout else { return try SafetensorsFile(path: path).readAll() }
        do {
            let file = try UpdateFile(path: path, layout: layout)
            var model = ParameterVector(zeros: layout)
            try file.read(0..<layout.parameterCount, into: &model.values)
            return model
        } catch let error as UpdateFormatError {
            throw ClientError(code: "model_mismatch", message: "the model cannot be read: \(error.description)")
        }
    }

    // MARK: - What is kept

    private func note(_ count: Int) { bytesDown += count }

    private func touch(_ name: String) {
        order.removeAll { $0 == name }
        order.append(name)
    }

    private func tidy() {
        for name in order.dropLast(Self.memoryCount) { loading[name] = nil }
        while order.count > Self.fileCount {
            let path = directory + "/" + order.removeFirst() + Self.suffix
            try? FileManager.default.removeItem(atPath: path)
            try? FileManager.default.removeItem(at: Self.sidecar(path))
        }
    }
}
