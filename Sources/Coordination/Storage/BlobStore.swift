import CKernels
package import Foundation

#if canImport(Glibc)
import Glibc
#endif

/// Immutable files named by their SHA-256, and the spool of updates in progress.
package struct BlobStore: Sendable {
    private let directory: String
    private let discarding = DispatchQueue(label: "martlet.discard", qos: .utility)

    /// Creates the directories where they are missing.
    package init(dataDirectory: String) throws {
        directory = dataDirectory
        for name in ["blobs", "spool", "noise"] {
            try FileManager.default.createDirectory(
                atPath: directory + "/" + name,
                withIntermediateDirectories: true,
                attributes: [.posixPermissions: 0o700]
            )
        }
    }

    /// Looks at a directory that is there, without making anything.
    package init(existing dataDirectory: String) {
        directory = dataDirectory
    }

    /// Where a blob lies.
    package func path(sha256: String) -> String {
        directory + "/blobs/" + sha256.prefix(2) + "/" + sha256
    }

    /// A file of the spool.
    package func spoolPath(_ name: String) -> String { directory + "/spool/" + name }

    /// The names in the spool, without those that were discarded.
    package func spoolNames() -> [String] {
        discarding.sync {}
        return (try? FileManager.default.contentsOfDirectory(atPath: spoolPath(""))) ?? []
    }

    /// Removes files that nothing refers to any more, soon.
    ///
    /// A cached file of 100 MB takes tens of milliseconds, for which the caller does not wait; and transactions, which the file
    /// system writes to the same journal, wait for one of them and not for all. What a stop leaves over a start removes.
    package func discard(_ paths: [String]) {
        guard !paths.isEmpty else { return }
        discarding.async {
            for path in paths {
                let start = ContinuousClock.now
                unlink(path)
                let pause = (ContinuousClock.now - start) * 3
                if pause > .milliseconds(1) { usleep(useconds_t(min(pause / .microseconds(1), 100_000))) }
            }
        }
    }

    /// The state of a run's correlated noise after a version.
    package func noiseStatePath(run: String, version: Int) -> String { directory + "/noise/\(run)-\(version).state" }

    /// Writes bytes durably and gives their SHA-256.
    package func put(_ data: Data) throws -> String {
        let sha256 = Secrets.sha256(data)
        let target = path(sha256: sha256)
        if FileManager.default.fileExists(atPath: target) { return sha256 }
        try makeParent(of: target)
        try Self.writeDurably(data, to: target)
        return sha256
    }

    /// Moves a finished spool file, already synced, among the blobs.
    package func adopt(spoolFile: String, sha256: String) throws {
        let target = path(sha256: sha256)
        try makeParent(of: target)
        try Self.renameDurably(spoolFile, to: target)
    }

    /// Gives a synced spool file its second name among the blobs; the spool's name goes when the caller has committed.
    package func link(spoolFile: String, sha256: String) throws {
        let target = path(sha256: sha256)
        try makeParent(of: target)
        Failpoint.reach()
        guard Glibc.link(spoolFile, target) == 0 || errno == EEXIST else {
            throw Self.failure("cannot link", spoolFile)
        }
        Failpoint.reach()
        try Self.syncDirectory(of: target)
    }

    /// Writes a file so that it is whole or absent after any crash.
    package static func writeDurably(_ data: Data, to path: String, mode: mode_t = 0o600) throws {
        let partial = path + ".part-" + Secrets.identifier("w")
        let descriptor = open(partial, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)
        guard descriptor >= 0 else { throw failure("cannot create", partial) }
        guard data.withUnsafeBytes({ write($0, to: descriptor) }) else {
            let problem = failure("cannot write", partial)
            close(descriptor)
            unlink(partial)
            throw problem
        }
        let synced = fsync(descriptor)
        close(descriptor)
        guard synced == 0 else { throw failure("cannot sync", partial) }
        try renameDurably(partial, to: path)
    }

    /// Writes all bytes, in as many calls as it takes.
    ///
    /// - Parameters:
    ///   - bytes: What is written.
    ///   - descriptor: An open file.
    ///   - offset: Where in the file; `nil` where the last write ended.
    /// - Returns: Whether all were written; else `errno` says why not.
    static func write(_ bytes: UnsafeRawBufferPointer, to descriptor: Int32, at offset: Int? = nil) -> Bool {
        var done = 0
        while done < bytes.count {
            let rest = bytes.baseAddress.map { $0 + done }
            let count =
                offset.map { pwrite(descriptor, rest, bytes.count - done, off_t($0 + done)) }
                ?? Glibc.write(descriptor, rest, bytes.count - done)
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { return false }
            done += count
        }
        return true
    }

    /// Renames and syncs the directory.
    package static func renameDurably(_ source: String, to target: String) throws {
        Failpoint.reach()
        guard rename(source, target) == 0 else { throw failure("cannot rename", source) }
        Failpoint.reach()
        try syncDirectory(of: target)
    }

    /// Gives a finished directory its name, once everything in it is on the disk.
    package static func publishDirectory(_ partial: String, as target: String) throws {
        let descriptor = open(partial, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw failure("cannot open", partial) }
        defer { close(descriptor) }
        // One call for all files, however many.
        guard martlet_sync_file_system(descriptor) == 0 else { throw failure("cannot sync", partial) }
        try renameDurably(partial, to: URL(fileURLWithPath: target).path)
    }

    /// Moves what a finished directory holds into one that is there already, such as a volume, once it is on the disk.
    ///
    /// - Parameters:
    ///   - partial: The finished directory, on the same file system; it is gone afterwards.
    ///   - target: The directory that takes its files.
    ///   - last: The file whose presence says that all is there.
    /// - Throws: ``CoordinationError`` with code `storage_failed` when something cannot be moved or synced.
    package static func publishContents(of partial: String, in target: String, last: String) throws {
        let descriptor = open(partial, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw failure("cannot open", partial) }
        defer { close(descriptor) }
        guard martlet_sync_file_system(descriptor) == 0 else { throw failure("cannot sync", partial) }
        let names = try FileManager.default.contentsOfDirectory(atPath: partial).sorted()
        for name in names.filter({ $0 != last }) + names.filter({ $0 == last }) {
            try renameDurably(partial + "/" + name, to: URL(fileURLWithPath: target + "/" + name).path)
        }
        try FileManager.default.removeItem(atPath: partial)
    }

    private static func syncDirectory(of target: String) throws {
        let parent = open((target as NSString).deletingLastPathComponent, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard parent >= 0 else { throw failure("cannot open the directory of", target) }
        fsync(parent)
        close(parent)
    }

    private func makeParent(of path: String) throws {
        try FileManager.default.createDirectory(
            atPath: (path as NSString).deletingLastPathComponent,
            withIntermediateDirectories: true
        )
    }

    static func failure(_ what: String, _ path: String) -> CoordinationError {
        CoordinationError(.unavailable, "storage_failed", "\(what) \(path): \(String(cString: strerror(errno)))")
    }
}
