package import Foundation

#if canImport(Glibc)
import Glibc
#endif

/// Blobs, spool and states of noise in one directory.
package struct DirectoryBlobStore: BlobStore {
    package let directory: String
    package let verifier = BlobVerifier()
    private let discarding = DispatchQueue(label: "martlet.discard", qos: .utility)
    private let owed = OwedRemovals()

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

    package func path(sha256: String) -> String {
        directory + "/blobs/" + sha256.prefix(2) + "/" + sha256
    }

    package func listSpool() throws(CoordinationError) -> [String] {
        discarding.sync {}
        return try DurableFiles.names(in: spoolDirectory) ?? []
    }

    /// Removes files that nothing refers to any more, one after another.
    ///
    /// A cached file of 100 MB takes tens of milliseconds, for which the caller does not wait; and transactions, which the file
    /// system writes to the same journal, wait for one of them and not for all.
    package func discard(_ paths: [String]) {
        guard !paths.isEmpty else { return }
        discarding.async {
            for path in paths {
                let start = ContinuousClock.now
                owed.remove(path)
                let pause = (ContinuousClock.now - start) * 3
                if pause > .milliseconds(1) { usleep(useconds_t(min(pause / .microseconds(1), 100_000))) }
            }
        }
    }

    package func removeAtOnce(_ paths: [String]) {
        for path in paths { owed.remove(path) }
    }

    package func want(_ paths: [String]) { owed.want(paths) }

    package func retryRemovals(noting note: @escaping @Sendable (StorageFailure) -> Void) {
        discarding.async { owed.retry().forEach(note) }
    }

    package func put(_ data: Data) throws -> String {
        let sha256 = Secrets.sha256(data)
        let target = path(sha256: sha256)
        // One of the same name may be damaged: it is written again.
        if (try? SpooledFile.measure(target).sha256) != sha256 {
            try makeParent(of: target)
            try DurableFiles.write(data, to: target)
        }
        verifier.noteWritten(target)
        return sha256
    }

    package func adopt(spoolFile: String, sha256: String) throws {
        let target = path(sha256: sha256)
        try makeParent(of: target)
        try DurableFiles.rename(spoolFile, to: target)
        verifier.noteWritten(target)
    }

    package func link(spoolFile: String, sha256: String) throws {
        let target = path(sha256: sha256)
        try makeParent(of: target)
        Failpoint.reach()
        if Glibc.link(spoolFile, target) == 0 {
            Failpoint.reach()
            do { try DurableFiles.syncDirectory(of: target) } catch {
                // A second sync may report success though the name is lost: the next try makes it again.
                if unlink(target) != 0 { DurableFiles.distrust(target) }
                throw error
            }
        } else {
            guard errno == EEXIST else { throw DurableFiles.failure(.link, spoolFile) }
            try replace(target, by: spoolFile)
        }
        verifier.noteWritten(target)
    }

    private func replace(_ target: String, by spoolFile: String) throws {
        if Self.isSameFile(target, spoolFile) {
            guard DurableFiles.isDistrusted(target) else { return }
            guard unlink(target) == 0, Glibc.link(spoolFile, target) == 0 else {
                throw DurableFiles.failure(.link, spoolFile)
            }
            try DurableFiles.syncDirectory(of: target)
            return DurableFiles.trust(target)
        }
        let other = target + ".part-" + Secrets.identifier("w")
        guard Glibc.link(spoolFile, other) == 0 else { throw DurableFiles.failure(.link, spoolFile) }
        do {
            try DurableFiles.rename(other, to: target)
        } catch {
            unlink(other)
            throw error
        }
    }

    private static func isSameFile(_ first: String, _ second: String) -> Bool {
        var (one, two) = (stat(), stat())
        return stat(first, &one) == 0 && stat(second, &two) == 0 && one.st_ino == two.st_ino && one.st_dev == two.st_dev
    }

    private func makeParent(of path: String) throws {
        let parent = (path as NSString).deletingLastPathComponent
        guard mkdir(parent, 0o700) == 0 else {
            guard errno == EEXIST else { throw DurableFiles.failure(.create, parent, .model) }
            return
        }
        do {
            try DurableFiles.syncDirectory(of: parent, role: .model)
        } catch {
            // So that the next one makes it, and waits for it, again.
            rmdir(parent)
            throw error
        }
    }
}
