import ArgumentParser
import Coordination
import Foundation
import SQLiteStorage
import WireFormat

/// A data directory as the maintenance commands see it.
struct DataDirectory {
    let path: String
    /// The ledger's second record where it lies elsewhere.
    var ledgerHead: String?

    /// Whether it is what `martlet backup` made, and no server's.
    var manifest: BackupManifest? {
        FileManager.default.contents(atPath: path + "/manifest.json").flatMap {
            try? WireCoding.decode(BackupManifest.self, from: $0)
        }
    }

    var database: String { path + "/martlet.sqlite" }

    /// Refuses a directory that holds no database.
    func requireDatabase() throws {
        guard FileManager.default.fileExists(atPath: database) else {
            throw ValidationError("\(path) holds no martlet.sqlite: name a server's data directory")
        }
    }

    /// Everything that a start checks.
    func findings(isDeep: Bool) -> [Finding] {
        do {
            let inspection = try SQLiteInspection(path: database)
            var findings = try inspection.findings()
            if let state = try inspection.state(), !findings.contains(where: { $0.severity == "error" }) {
                let manifest = manifest
                if let manifest, manifest.ledgerHead != state.ledger.last?.rowHash ?? "" {
                    findings.append(
                        Finding(
                            "error",
                            "manifest_differs",
                            "the ledger in the database is not the one that manifest.json names",
                            remedy: "use another backup: files of two were mixed"
                        )
                    )
                }
                findings += DataDirectoryCheck(
                    state: state,
                    blobs: BlobStore(existing: path),
                    ledgerHeadPath: manifest == nil ? ledgerHead ?? path + "/ledger.head" : nil
                ).findings(isDeep: isDeep)
            }
            try inspection.close()
            return findings.sorted { Finding.order($0) < Finding.order($1) }
        } catch {
            return [
                Finding(
                    "error",
                    "database_unreadable",
                    "the database cannot be read: \(error)",
                    remedy: "check the file's owner and the disk; restore the last backup: martlet restore"
                )
            ]
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
