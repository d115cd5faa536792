import Foundation

#if canImport(Glibc)
import Glibc
#endif

/// Where a client keeps its credential, its ledger and a finished update, each file whole or absent after any crash.
public struct ClientState: Sendable {
    /// The directory.
    public let directory: String

    /// Takes a directory, made with mode 0700 where it is missing.
    ///
    /// - Throws: The file system's error.
    public init(directory: String) throws {
        self.directory = directory
        try FileManager.default.createDirectory(
            atPath: directory,
            withIntermediateDirectories: true,
            attributes: [.posixPermissions: 0o700]
        )
    }

    struct Credential: Codable {
        var clientId: String
        var token: String
    }

    /// Whether the client has registered.
    var hasCredential: Bool { read("credential.json", Credential.self) != nil }

    /// A finished update that has not been acknowledged; the same bytes are sent until it is.
    struct PendingUpload: Codable {
        var assignment: String
        var updateUrl: String
        var sha256: String
        /// The run whose control variate `control.next` is, when the update was accepted and its round commits (SCAFFOLD).
        var controlRun: String?
        /// What `residual.next` becomes when the update was accepted (sparse updates).
        var residualFile: String?
        /// `nil` for a safetensors file.
        var contentType: String?
    }

    func read<Value: Decodable>(_ name: String, _ type: Value.Type) -> Value? {
        guard let data = try? Data(contentsOf: URL(fileURLWithPath: path(name))) else { return nil }
        return try? JSONDecoder().decode(type, from: data)
    }

    func write(_ name: String, _ value: some Encodable) throws {
        try write(name, data: JSONEncoder().encode(value))
    }

    func write(_ name: String, data: Data) throws {
        let partial = path(name + ".part")
        let descriptor = open(partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw failure(name) }
        let written = data.withUnsafeBytes { raw -> Bool in
            var offset = 0
            while offset < raw.count {
                let count = Glibc.write(descriptor, raw.baseAddress.map { $0 + offset }, raw.count - offset)
                guard count > 0 else { return false }
                offset += count
            }
            return fsync(descriptor) == 0
        }
        close(descriptor)
        guard written, rename(partial, path(name)) == 0 else { throw failure(name) }
    }

    /// Renames a file; one that is gone already was renamed before a kill.
    func move(_ name: String, to target: String) throws {
        guard rename(path(name), path(target)) == 0 || errno == ENOENT else { throw failure(target) }
    }

    func remove(_ name: String) {
        unlink(path(name))
    }

    func exists(_ name: String) -> Bool { FileManager.default.fileExists(atPath: path(name)) }

    func path(_ name: String) -> String { directory + "/" + name }

    private func failure(_ name: String) -> ClientError {
        ClientError(code: "storage", message: "cannot write \(path(name)): \(String(cString: strerror(errno)))")
    }
}
