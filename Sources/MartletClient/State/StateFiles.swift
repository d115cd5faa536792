import CLibrary
import Foundation
import MartletTransport
import StrictJSON

/// A client's files, each whole or absent after any crash: written under a name of their own, synced, then renamed.
struct StateFiles: Sendable {
    let directory: String
    /// Called before and after each change; a test may end the process there, or fail for good.
    var failpoint: @Sendable () throws -> Void = StateFailpoint.reach

    func path(_ name: String) -> String { directory + "/" + name }

    /// A path that nobody else writes to, in the same directory; cleared away by the next start.
    func temporaryPath(_ name: String) -> String { path(".\(name).\(getpid())-\(UUID().uuidString)\(Self.suffix)") }

    private static let suffix = ".tmp"

    /// Whether there is something of that name; a link counts wherever it leads, and is refused when it is opened.
    ///
    /// - Throws: `ClientError` with code `storage` where the disk does not say: what it cannot tell is not missing.
    func exists(_ name: String) throws -> Bool {
        var status = stat()
        if lstat(path(name), &status) == 0 { return true }
        guard errno == ENOENT else { throw LocalFailure.error("read", path(name), errno) }
        return false
    }

    /// Whether the file is there.
    func exists<Value>(_ file: StateFile<Value>) throws -> Bool { try exists(file.name) }

    /// The SHA-256 of a file that is there.
    ///
    /// - Throws: `ClientError` of this device's files.
    func digest(_ name: String) throws -> Data {
        do { return try FileDigest.sha256(path(name)) } catch {
            throw LocalFailure.error(error, path(name)) ?? LocalFailure.error("read", path(name), EIO)
        }
    }

    /// A file's contents, or `nil` where there is none or one that is damaged: for what may be begun anew.
    ///
    /// - Throws: `ClientError` of this device's files, where they cannot be read now.
    func readIfWhole<Value>(_ file: StateFile<Value>) throws -> Value? {
        do { return try read(file) } catch let error as ClientError where error.isStateDamaged {
            return nil
        }
    }

    /// A file's contents.
    ///
    /// - Returns: `nil` where there is none.
    /// - Throws: `ClientError` with code `state_damaged` for one that is not what was written, else `storage`.
    func read<Value>(_ file: StateFile<Value>) throws -> Value? {
        guard let data = try contents(file.name) else { return nil }
        do { return try JSONDecoder().decode(Value.self, from: data) } catch {
            throw ClientError(
                code: "state_damaged",
                message: "\(path(file.name)) is damaged: \(data.count) bytes that are not what this client writes"
            )
        }
    }

    func contents(_ name: String) throws -> Data? { try PlainFile.contents(path(name)) }

    func write<Value>(_ file: StateFile<Value>, _ value: Value) throws {
        try write(file.name, data: Data(JSONValue(encoding: value).text.utf8))
    }

    func write(_ name: String, data: Data) throws {
        try failpoint()
        let temporary = temporaryPath(name)
        do {
            try put(data, at: temporary, flags: O_EXCL)
        } catch {
            unlink(temporary)
            throw error
        }
        try failpoint()
        try rename(temporary, to: name)
    }

    /// Gives a file that is complete and synced its name, durably.
    func rename(_ temporary: String, to name: String) throws {
        guard CLibrary.rename(temporary, path(name)) == 0 else {
            let code = errno
            unlink(temporary)
            throw LocalFailure.error("write", path(name), code)
        }
        try sync()
        try failpoint()
    }

    /// Renames a file; one that is gone already was renamed before a kill.
    func move(_ name: String, to target: String) throws {
        try failpoint()
        guard CLibrary.rename(path(name), path(target)) == 0 || errno == ENOENT else {
            throw LocalFailure.error("write", path(target), errno)
        }
        try sync()
        try failpoint()
    }

    /// Removes a file; one that is not there was removed before.
    func remove(_ name: String) throws {
        guard try exists(name) else { return }
        try failpoint()
        guard unlink(path(name)) == 0 || errno == ENOENT else { throw LocalFailure.error("remove", path(name), errno) }
        try sync()
        try failpoint()
    }

    /// Sees whether a file of some size can be written now.
    ///
    /// - Throws: `ClientError` with code `disk_full` or `storage`.
    func probe() throws {
        let temporary = temporaryPath("probe")
        defer { unlink(temporary) }
        try put(Data(count: 64 << 10), at: temporary, flags: O_EXCL)
    }

    /// Names of files that begin so.
    ///
    /// - Throws: `ClientError` with code `storage`.
    func names(beginningWith prefix: String) throws -> [String] {
        do {
            return try FileManager.default.contentsOfDirectory(atPath: directory).filter { $0.hasPrefix(prefix) }
        } catch { throw ClientError(code: "storage", message: "the state directory cannot be listed: \(error)") }
    }

    /// Clears away what writing has left that was ended by a kill.
    func removeTemporaries() {
        for name in (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
        where name.hasPrefix(".") && name.hasSuffix(Self.suffix) {
            unlink(path(name))
        }
    }

    private func put(_ data: Data, at path: String, flags: Int32) throws {
        let descriptor = PlainFile.open(path, O_WRONLY | O_CREAT | flags)
        guard descriptor >= 0 else { throw LocalFailure.error("write", path, errno) }
        defer { close(descriptor) }
        try data.withUnsafeBytes { raw in
            var offset = 0
            while offset < raw.count {
                let count = CLibrary.write(descriptor, raw.baseAddress.map { $0 + offset }, raw.count - offset)
                if count < 0 && errno == EINTR { continue }
                guard count > 0 else { throw LocalFailure.error("write", path, count < 0 ? errno : ENOSPC) }
                offset += count
            }
        }
        guard fsync(descriptor) == 0 else { throw LocalFailure.error("write", path, errno) }
    }

    private func sync() throws {
        let descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw LocalFailure.error("open", directory, errno) }
        defer { close(descriptor) }
        // Some file systems sync no directories, and say so.
        guard fsync(descriptor) == 0 || errno == EINVAL || errno == EROFS else {
            throw LocalFailure.error("write", directory, errno)
        }
    }
}
