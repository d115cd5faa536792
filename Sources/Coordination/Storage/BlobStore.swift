import CKernels
package import Foundation
import Synchronization

#if canImport(Glibc)
import Glibc
#endif

/// Immutable files named by their SHA-256, and the spool of updates in progress.
package struct BlobStore: Sendable {
    private let directory: String
    /// Which files may be believed.
    package let verifier = BlobVerifier()
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

    /// Where updates and results lie until their round is over.
    var spoolDirectory: String { directory + "/spool" }

    /// A file of the spool.
    package func spoolPath(_ name: String) -> String { spoolDirectory + "/" + name }

    /// What an attempt's arithmetic comes to; its companions have this name and ``AggregationJob/resultSuffixes``.
    func resultPath(run: String, round: Int, attempt: Int) -> String { spoolPath("\(run)-\(round)-\(attempt).result") }

    /// The names in the spool, without those that were discarded.
    package func spoolNames() -> [String] {
        discarding.sync {}
        return (try? FileManager.default.contentsOfDirectory(atPath: spoolDirectory)) ?? []
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

    /// Where the states of correlated noise lie.
    var noiseDirectory: String { directory + "/noise" }

    /// The state of a run's correlated noise after a version.
    package func noiseStatePath(run: String, version: Int) -> String { noiseDirectory + "/\(run)-\(version).state" }

    /// Writes bytes durably and gives their SHA-256.
    package func put(_ data: Data) throws -> String {
        let sha256 = Secrets.sha256(data)
        let target = path(sha256: sha256)
        // One of the same name may be damaged: it is written again.
        if (try? SpooledFile.measure(target).sha256) != sha256 {
            try makeParent(of: target)
            try Self.writeDurably(data, to: target)
        }
        verifier.noteWritten(target)
        return sha256
    }

    /// Moves a finished spool file, already synced, among the blobs.
    package func adopt(spoolFile: String, sha256: String) throws {
        let target = path(sha256: sha256)
        try makeParent(of: target)
        try Self.renameDurably(spoolFile, to: target)
        verifier.noteWritten(target)
    }

    /// Gives a synced spool file its second name among the blobs; the spool's name goes when the caller has committed.
    ///
    /// Nothing is read, however large it is. A blob that is there already, an equal model's or a damaged one, gives its name to this
    /// file, whose bytes were hashed while they were written.
    package func link(spoolFile: String, sha256: String) throws {
        let target = path(sha256: sha256)
        try makeParent(of: target)
        Failpoint.reach()
        if Glibc.link(spoolFile, target) == 0 {
            Failpoint.reach()
            do { try Self.syncDirectory(of: target) } catch {
                // A second sync may report success though the name is lost: the next try makes it again.
                if unlink(target) != 0 { Self.unsynced.withLock { _ = $0.insert(target) } }
                throw error
            }
        } else {
            guard errno == EEXIST else { throw Self.failure(.link, spoolFile) }
            try replace(target, by: spoolFile)
        }
        verifier.noteWritten(target)
    }

    private func replace(_ target: String, by spoolFile: String) throws {
        if Self.isSameFile(target, spoolFile) {
            guard Self.unsynced.withLock({ $0.contains(target) }) else { return }
            guard unlink(target) == 0, Glibc.link(spoolFile, target) == 0 else {
                throw Self.failure(.link, spoolFile)
            }
            try Self.syncDirectory(of: target)
            return Self.unsynced.withLock { _ = $0.remove(target) }
        }
        let other = target + ".part-" + Secrets.identifier("w")
        guard Glibc.link(spoolFile, other) == 0 else { throw Self.failure(.link, spoolFile) }
        do {
            try Self.renameDurably(other, to: target)
        } catch {
            unlink(other)
            throw error
        }
    }

    private static func isSameFile(_ first: String, _ second: String) -> Bool {
        var (one, two) = (stat(), stat())
        return stat(first, &one) == 0 && stat(second, &two) == 0 && one.st_ino == two.st_ino && one.st_dev == two.st_dev
    }

    /// Names that were made, and directories in which names were removed, whose sync has failed: a sync that only comes after that may
    /// report success and write nothing.
    private static let unsynced = Mutex<Set<String>>([])

    /// Writes a file so that it is whole or absent after any crash.
    ///
    /// Where the disk does not confirm it, it is written once more under another name: Linux says that a second sync of the
    /// same file succeeds although its data are lost.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed`; nothing is left of the new file then.
    package static func writeDurably(
        _ data: Data,
        to path: String,
        mode: mode_t = 0o600,
        role: StorageFailure.Role? = nil
    ) throws {
        do {
            try writeOnce(data, to: path, mode: mode, role: role)
        } catch let error as CoordinationError where error.storage?.action == .sync {
            try writeOnce(data, to: path, mode: mode, role: role)
        }
    }

    private static func writeOnce(
        _ data: Data,
        to path: String,
        mode: mode_t,
        role: StorageFailure.Role?
    ) throws {
        let partial = path + ".part-" + Secrets.identifier("w")
        let descriptor = open(partial, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)
        guard descriptor >= 0 else { throw failure(.create, partial, role) }
        do {
            defer { close(descriptor) }
            guard data.withUnsafeBytes({ write($0, to: descriptor) }) else { throw failure(.write, partial, role) }
            guard fsync(descriptor) == 0 else { throw failure(.sync, partial, role) }
            try renameDurably(partial, to: path, role: role)
        } catch {
            unlink(partial)
            throw error
        }
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
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed`. Then the file has its old name, or the new one, which might
    ///   not survive a power cut.
    package static func renameDurably(
        _ source: String,
        to target: String,
        role: StorageFailure.Role? = nil
    ) throws {
        Failpoint.reach()
        guard rename(source, target) == 0 else { throw failure(.rename, source, role) }
        Failpoint.reach()
        try syncDirectory(of: target, role: role)
    }

    /// Removes files for good: none of them comes back after a power cut.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed`.
    static func removeDurably(_ paths: [String], in directory: String) throws {
        let role = StorageFailure.Role(path: paths.first ?? directory + "/")
        var isChanged = false
        for path in paths {
            if unlink(path) == 0 {
                isChanged = true
            } else if errno != ENOENT {
                let failure = failure(.remove, path)
                // What was removed before is not for good yet.
                if isChanged { distrust(directory) }
                throw failure
            }
        }
        let isDoubted = unsynced.withLock { $0.contains(directory) }
        guard isChanged || isDoubted else { return }
        do {
            if isDoubted { try change(directory, role: role) }
            try syncDirectory(directory, role: role)
        } catch {
            distrust(directory)
            throw error
        }
        if isDoubted { unsynced.withLock { _ = $0.remove(directory) } }
    }

    /// Notes that names which were removed from a directory may still be on the disk.
    ///
    /// The next removal there, of whatever, brings them to it. A start notes it of the directories where that matters, since an earlier process may have died over it.
    static func distrust(_ directory: String) { unsynced.withLock { _ = $0.insert(directory) } }

    /// Changes a directory, so that its next sync has something to write.
    private static func change(_ directory: String, role: StorageFailure.Role) throws {
        let path = directory + "/.sync"
        let file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw failure(.create, path, role) }
        close(file)
        guard unlink(path) == 0 else { throw failure(.remove, path, role) }
    }

    /// Gives a finished directory its name, once everything in it is on the disk.
    package static func publishDirectory(_ partial: String, as target: String) throws {
        let descriptor = open(partial, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw failure(.open, partial) }
        defer { close(descriptor) }
        // One call for all files, however many.
        guard martlet_sync_file_system(descriptor) == 0 else { throw failure(.sync, partial) }
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
        guard descriptor >= 0 else { throw failure(.open, partial) }
        defer { close(descriptor) }
        guard martlet_sync_file_system(descriptor) == 0 else { throw failure(.sync, partial) }
        let names = try FileManager.default.contentsOfDirectory(atPath: partial).sorted()
        for name in names.filter({ $0 != last }) + names.filter({ $0 == last }) {
            try renameDurably(partial + "/" + name, to: URL(fileURLWithPath: target + "/" + name).path)
        }
        try FileManager.default.removeItem(atPath: partial)
    }

    static func syncDirectory(of target: String, role: StorageFailure.Role? = nil) throws {
        try syncDirectory((target as NSString).deletingLastPathComponent, role: role ?? .init(path: target))
    }

    /// Brings a directory's names to the disk.
    ///
    /// Some file systems know no such call (EINVAL, ENOTSUP); `martlet doctor` warns of them.
    static func syncDirectory(_ path: String, role: StorageFailure.Role) throws {
        let directory = open(path.isEmpty ? "." : path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard directory >= 0 else { throw failure(.open, path, role) }
        defer { close(directory) }
        guard fsync(directory) == 0 || errno == EINVAL || errno == ENOTSUP else { throw failure(.sync, path, role) }
    }

    /// Why names in the data directory cannot be brought to the disk; `nil` where they can.
    package func directorySyncProblem() -> StorageFailure? {
        let place = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard place >= 0 else { return StorageFailure(.open, path: directory, role: .directory) }
        defer { close(place) }
        guard fsync(place) != 0 else { return nil }
        return StorageFailure(.sync, path: directory, role: .directory)
    }

    private func makeParent(of path: String) throws {
        let parent = (path as NSString).deletingLastPathComponent
        guard mkdir(parent, 0o700) == 0 else {
            guard errno == EEXIST else { throw Self.failure(.create, parent, .model) }
            return
        }
        do {
            try Self.syncDirectory(of: parent, role: .model)
        } catch {
            // So that the next one makes it, and waits for it, again.
            rmdir(parent)
            throw error
        }
    }

    /// The error of a call that has just failed; reads `errno`.
    package static func failure(
        _ action: StorageFailure.Action,
        _ path: String,
        _ role: StorageFailure.Role? = nil
    ) -> CoordinationError { StorageFailure(action, path: path, role: role).error }
}
