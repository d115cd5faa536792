import Coordination
import Foundation
import Tensors
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
    /// Of these, how many may be of versions that no device needs now.
    static let otherLimit = 8
    /// Makings of such files that wait at a time; further callers are told to come again.
    static let waitingLimit = 2

    private let directory: String
    private let verifier = BlobVerifier()
    private var making: [String: Task<File, any Error>] = [:]
    /// By the model's hash and the encoding, as in the beginning of the file's name.
    private var files: [String: File] = [:]
    /// Keys of `files`, the one that was asked for last at the end.
    private var order: [String] = []
    /// Keys of files that somebody asked for of a version that no device needed then.
    private var others: Set<String> = []
    private var otherMakings = 0
    /// What devices need is made one after the other, and what else is asked for beside that, so that neither takes the threads on
    /// which updates are judged.
    private let neededQueue = DispatchQueue(label: "martlet.variants", qos: .userInitiated)
    private let otherQueue = DispatchQueue(label: "martlet.variants.others", qos: .utility)
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
    ///   - isNeeded: Whether devices need it now. Other files are few, and never take the place of one that is needed.
    /// - Returns: Its file, hash and size.
    /// - Throws: ``CoordinationError`` with code `storage_failed`, `model_being_checked` where too many others are being made, or
    ///   `SafetensorsError`.
    func file(
        of sha256: String,
        at source: String,
        as encoding: UpdateEncoding,
        isNeeded: Bool = true
    ) async throws -> File {
        try open()
        let key = Self.key(sha256, encoding)
        if let known = try await whole(key) {
            touch(key)
            if isNeeded { others.remove(key) }
            return known
        }
        if let task = making[key] { return try await task.value }
        guard isNeeded || otherMakings < Self.waitingLimit else {
            throw CoordinationError(
                .unavailable,
                "model_being_checked",
                "other models are being written in fewer bits: ask again in a moment, or fetch this one as f32"
            )
        }
        if !isNeeded { otherMakings += 1 }
        let queue = isNeeded ? neededQueue : otherQueue
        let task = Task { [directory] in
            try await queue.result { try Self.make(key, source, encoding, directory) }
        }
        making[key] = task
        defer {
            making[key] = nil
            if !isNeeded { otherMakings -= 1 }
        }
        let file = try await task.value
        files[key] = file
        verifier.noteWritten(file.path)
        touch(key)
        if !isNeeded { others.insert(key) }
        while others.count > Self.otherLimit, let key = order.first(where: others.contains) { drop(key) }
        while order.count > Self.fileLimit, let key = order.first(where: others.contains) ?? order.first { drop(key) }
        return file
    }

    private func drop(_ key: String) {
        order.removeAll { $0 == key }
        others.remove(key)
        if let old = files.removeValue(forKey: key) { unlink(old.path) }
    }

    /// Whether there is a variant that can be sent, so that its model's file need not be read.
    func isKnown(_ sha256: String, as encoding: UpdateEncoding) async throws -> Bool {
        try open()
        return try await whole(Self.key(sha256, encoding)) != nil
    }

    // MARK: -

    private static func key(_ sha256: String, _ encoding: UpdateEncoding) -> String {
        sha256 + "." + encoding.rawValue
    }

    /// The file that is kept, hashed once in this process; one that is damaged goes, and is made again.
    private func whole(_ key: String) async throws -> File? {
        guard let known = files[key], access(known.path, R_OK) == 0 else { return nil }
        do {
            try await verifier.verify(known.path, sha256: known.sha256, owner: "a model in fewer bits")
            return known
        } catch let error as CoordinationError where ["model_damaged", "model_missing"].contains(error.code) {
            files[key] = nil
            unlink(known.path)
            return nil
        }
    }

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
            let sha256 = try file.digest().hexadecimal
            let path = directory + "/" + key + "." + sha256
            try DurableFiles.rename(partial, to: path)
            return File(path: path, sha256: sha256, byteCount: file.byteCount)
        } catch {
            unlink(partial)
            throw error
        }
    }
}
