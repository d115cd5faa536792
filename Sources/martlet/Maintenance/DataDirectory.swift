import ArgumentParser
import Coordination
import Foundation
import SQLiteStorage
import WireFormat

#if canImport(Glibc)
import Glibc
#endif

/// A data directory as the maintenance commands see it.
struct DataDirectory {
    let path: String
    /// The ledger's second record where it lies elsewhere.
    var ledgerHead: String?

    /// What `martlet backup` wrote about the directory; `nil` where it did not make it, as of a server's.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed` where the disk does not give it.
    func manifest() throws -> BackupManifest? {
        try DurableFiles.readIfPresent(path + "/manifest.json").flatMap {
            try? WireCoding.decode(BackupManifest.self, from: $0)
        }
    }

    var database: String { path + "/martlet.sqlite" }

    /// Where the database is gone, or empty, while other files of a server are there; `nil` where it is not.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed` where the disk does not say: a server that starts anew in such a
    ///   directory would give up what it holds.
    func missingDatabase() throws -> Finding? {
        guard try DurableFiles.byteCount(database) ?? 0 == 0 else { return nil }
        let blobs = try (DurableFiles.names(in: path + "/blobs") ?? []).filter { $0.utf8.count == 2 }.flatMap {
            try (DurableFiles.names(in: path + "/blobs/" + $0) ?? []).filter { $0.utf8.count == 64 }
        }
        let updates = try (DurableFiles.names(in: path + "/spool") ?? []).filter { $0.hasSuffix(".update") }
        var others = try ["ledger.head", "admin-token"].filter { try DurableFiles.exists(path + "/" + $0) }
        if let ledgerHead, !isOwn(ledgerHead), try DurableFiles.exists(ledgerHead) {
            others.append("the ledger's second record \(ledgerHead)")
        }
        guard !blobs.isEmpty || !updates.isEmpty || !others.isEmpty else { return nil }
        let found =
            [
                blobs.isEmpty ? nil : "\(blobs.count) model files",
                updates.isEmpty ? nil : "\(updates.count) accepted updates",
            ].compactMap { $0 } + others
        return Finding(
            .error,
            "database_missing",
            "martlet.sqlite is gone, but there are \(found.joined(separator: ", ")) of it",
            remedy:
                "mount or put back what holds martlet.sqlite (with its -wal), or restore the last backup (martlet restore)"
        )
    }

    /// Whether a finding says that the database is gone, or that the disk does not tell.
    var mayHaveLostDatabase: Bool {
        do { return try missingDatabase() != nil } catch { return true }
    }

    /// Where a server of this directory keeps the ledger's second record.
    var ledgerHeadPath: String { ledgerHead ?? path + "/ledger.head" }

    private func isOwn(_ ledgerHead: String) -> Bool {
        URL(fileURLWithPath: ledgerHead).standardizedFileURL.path
            == URL(fileURLWithPath: path + "/ledger.head").standardizedFileURL.path
    }

    /// Refuses a directory that holds no database.
    ///
    /// - Parameter wanted: What should have been named, for the message.
    /// - Throws: `ValidationError` that says what to name.
    func requireDatabase(of wanted: String = "a server's data directory") throws {
        guard try DurableFiles.exists(path) else {
            throw ValidationError("there is no directory \(path): name \(wanted)")
        }
        guard try DurableFiles.exists(database) else {
            throw ValidationError("\(path) holds no martlet.sqlite: name \(wanted)")
        }
    }

    /// Everything that a start checks.
    func findings(isDeep: Bool, modelByteLimit: Int? = nil) -> [Finding] {
        do {
            if let missing = try missingDatabase() { return [missing] }
            let inspection = try SQLiteInspection(path: database)
            var findings = try inspection.findings()
            if let state = try inspection.state(), !findings.contains(where: { $0.severity == .error }) {
                let manifest = try manifest()
                if let manifest, manifest.ledgerHead != state.ledger.last?.rowHash ?? "" {
                    findings.append(
                        Finding(
                            .error,
                            "manifest_differs",
                            "the ledger in the database is not the one that manifest.json names",
                            remedy: "use another backup: files of two were mixed"
                        )
                    )
                }
                findings += DataDirectoryCheck(
                    state: state,
                    blobs: DirectoryBlobStore(existing: path),
                    ledgerHeadPath: manifest == nil ? ledgerHeadPath : nil,
                    // The server that starts on what was restored knows what is missing, and abandons its attempt.
                    isBackup: try manifest != nil || DurableFiles.exists(path + "/restored.json")
                ).findings(isDeep: isDeep)
                if let modelByteLimit {
                    let blobs = DirectoryBlobStore(existing: path)
                    findings += SettingsCheck.findings(state, blobs: blobs, modelByteLimit: modelByteLimit)
                }
            }
            try inspection.close()
            return findings.sorted { Finding.order($0) < Finding.order($1) }
        } catch {
            if let error = error as? CoordinationError, let failure = error.storage {
                let said = "\(failure.path): \(failure.sentence)"
                return [Finding(.error, error.code, said, remedy: failure.advice)]
            }
            let failure = error as? StoreFailure
            let remedy = "check the file's owner and the disk; restore the last backup: martlet restore"
            if failure?.cause == .damaged {
                return [
                    Finding(
                        .error,
                        "database_damaged",
                        "the database is damaged: \(failure?.detail ?? "")",
                        remedy: "restore the last backup: martlet restore"
                    )
                ]
            }
            let reason = failure.map { $0.cause == .other ? $0.detail : $0.storage.sentence } ?? "\(error)"
            return [Finding(.error, "database_unreadable", "the database cannot be read: \(reason)", remedy: remedy)]
        }
    }

    /// A directory's path as it is written with or without a slash at its end: names beside it are made of it.
    static func withoutSlash(_ path: String) -> String {
        var path = path
        while path.count > 1 && path.hasSuffix("/") { path.removeLast() }
        return path
    }

    /// Gives a file a second name where the file system can, and copies it elsewhere.
    static func place(_ source: String, at target: String) throws {
        try FileManager.default.createDirectory(
            atPath: (target as NSString).deletingLastPathComponent,
            withIntermediateDirectories: true,
            attributes: [.posixPermissions: 0o700]
        )
        if link(source, target) == 0 || errno == EEXIST { return }
        try FileManager.default.copyItem(atPath: source, toPath: target)
    }
}

/// What lies in a backup, beside the files.
struct BackupManifest: Codable {
    var version = 1
    var createdAt: String
    var ledgerHead: String
    var ledgerRows: Int
    var modelFiles: Int
    var updates: Int
}
