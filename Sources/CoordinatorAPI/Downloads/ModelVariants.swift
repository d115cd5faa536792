import Coordination
import Foundation
import UpdateCompression

#if canImport(Glibc)
import Glibc
#endif

/// The models' files in fewer bits, each made once and kept on the disk; what is gone is made again.
actor ModelVariants {
    /// A file that can be sent.
    struct File: Sendable {
        var path: String
        var sha256: String
        var byteCount: Int
    }

    /// Files that are kept; those that were asked for longest ago go first.
    static let fileLimit = 32

    private let directory: String
    private var making: [String: Task<File, any Error>] = [:]
    /// By the model's hash and the encoding, as in the beginning of the file's name.
    private var files: [String: File] = [:]
    /// Keys of `files`, the one that was asked for last at the end.
    private var order: [String] = []
    private var isOpen = false

    init(dataDirectory: String) {
        directory = dataDirectory + "/variants"
    }

    /// The variant of a model, made where it is missing; asked for at the same time, it is made once.
    ///
    /// - Parameters:
    ///   - sha256: The model's hash.
    ///   - source: The model's file.
    ///   - encoding: How the variant is written.
    /// - Returns: Its file, hash and size.
    /// - Throws: ``CoordinationError`` with code `storage_failed`, or `SafetensorsError`.
    func file(of sha256: String, at source: String, as encoding: UpdateEncoding) async throws -> File {
        try open()
        let key = sha256 + "." + encoding.rawValue
        if let known = files[key], access(known.path, R_OK) == 0 {
            touch(key)
            return known
        }
        if let task = making[key] { return try await task.value }
        let task = Task { [directory] in try await DiskQueue.run { try Self.make(key, source, encoding, directory) } }
        making[key] = task
        defer { making[key] = nil }
        let file = try await task.value
        files[key] = file
        touch(key)
        while order.count > Self.fileLimit {
            if let old = files.removeValue(forKey: order.removeFirst()) { unlink(old.path) }
        }
        return file
    }

    // MARK: -

    private func touch(_ key: String) {
        order.removeAll { $0 == key }
        order.append(key)
    }

    /// Looks at what an earlier process has left: names say everything, `MODEL.ENCODING.SHA256`.
    private func open() throws {
        guard !isOpen else { return }
        let manager = FileManager.default
        try manager.createDirectory(
            atPath: directory,
            withIntermediateDirectories: true,
            attributes: [.posixPermissions: 0o700]
        )
        for name in try manager.contentsOfDirectory(atPath: directory).sorted() {
            let path = directory + "/" + name
            let parts = name.split(separator: ".").map(String.init)
            let size = try? manager.attributesOfItem(atPath: path)[.size] as? Int
            guard parts.count == 3, parts[2].count == 64, let size else {
                unlink(path)
                continue
            }
            let key = parts[0] + "." + parts[1]
            files[key] = File(path: path, sha256: parts[2], byteCount: size)
            touch(key)
        }
        isOpen = true
    }

    private static func make(
        _ key: String,
        _ source: String,
        _ encoding: UpdateEncoding,
        _ directory: String
    ) throws -> File {
        let partial = directory + "/" + Secrets.identifier("part")
        do {
            let file = try SpoolFile(path: partial, expectedByteCount: nil)
            try ModelVariant.write(source, as: encoding) { try file.write($0) }
            try file.sync()
            let sha256 = Secrets.hexadecimal(try file.digest())
            let path = directory + "/" + key + "." + sha256
            try BlobStore.renameDurably(partial, to: path)
            return File(path: path, sha256: sha256, byteCount: file.byteCount)
        } catch {
            unlink(partial)
            throw error
        }
    }
}
