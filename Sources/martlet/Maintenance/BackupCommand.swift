import ArgumentParser
import Coordination
import Foundation
import SQLiteStorage
import WireFormat

/// A consistent copy of a data directory, also while its server runs.
struct BackupCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "backup",
        abstract: "Copy a data directory, also while its server runs.",
        discussion: """
            The database is copied by SQLite's online backup; model files and the updates of open rounds are linked where
            target and source are one file system, and copied elsewhere. The target appears whole or not at all.
            Updates of private runs are left out: a backup would keep them after their round, in mode central without noise. A
            server that is restored in the middle of a private round abandons its attempt, and the charge stays.
            Tokens are in it as hashes only; keep it as safe as the data directory all the same.
            """
    )

    @Argument(help: "Where the backup goes; must not exist.", transform: DataDirectory.withoutSlash) var target: String
    @Option(help: "The server's data directory.") var dataDir: String

    func run() throws {
        let source = DataDirectory(path: dataDir)
        try source.requireDatabase()
        guard try !DurableFiles.exists(target) else {
            throw ValidationError("\(target) exists already; a backup never overwrites one")
        }
        let partial = target + ".partial"
        try? FileManager.default.removeItem(atPath: partial)
        try FileManager.default.createDirectory(
            atPath: partial,
            withIntermediateDirectories: true,
            attributes: [.posixPermissions: 0o700]
        )
        do {
            let manifest = try copy(source, to: partial)
            try DurableFiles.publishDirectory(partial, as: target)
            print(
                "backed up to \(target): \(manifest.modelFiles) model files, \(manifest.updates) updates of open rounds, "
                    + "\(manifest.ledgerRows) ledger rows"
            )
        } catch {
            try? FileManager.default.removeItem(atPath: partial)
            throw error
        }
    }

    /// A round that commits in between takes its updates with it: then all is done again, of a later moment.
    private func copy(_ source: DataDirectory, to partial: String) throws -> BackupManifest {
        let files = DirectoryBlobStore(existing: source.path)
        for _ in 0..<10 {
            try? FileManager.default.removeItem(atPath: partial + "/martlet.sqlite")
            try? FileManager.default.removeItem(atPath: partial + "/spool")
            let live = try SQLiteInspection(path: source.database)
            // Before and after: a round may commit in between.
            if let before = try live.state() { try linkSpool(source.path, to: partial, of: before) }
            try live.backUp(to: partial + "/martlet.sqlite")
            try live.close()
            let copied = try SQLiteInspection(path: partial + "/martlet.sqlite")
            guard let state = try copied.state() else {
                throw ValidationError(
                    "a newer version of Martlet wrote this database: back it up with that version's martlet"
                )
            }
            try copied.close()
            try linkSpool(source.path, to: partial, of: state)
            // What the optimiser remembers and the control variate belong to a version: without them no next round.
            let blobs = state.modelVersions.flatMap { [$0.sha256, $0.optimizerSha256, $0.controlSha256] }
            for sha256 in Set(blobs.compactMap { $0 }) {
                let name = "/blobs/" + sha256.prefix(2) + "/" + sha256
                try DataDirectory.place(files.path(sha256: sha256), at: partial + name)
            }
            let check = DataDirectoryCheck(state: state, blobs: DirectoryBlobStore(existing: partial), isBackup: true)
            guard check.lostUpdates().isEmpty else { continue }
            // A result that the server began to use meanwhile, or of another moment than the copy of the database.
            for name in try check.unusableResultNames() {
                try FileManager.default.removeItem(atPath: partial + "/spool/" + name)
            }
            let spooled = try (DurableFiles.names(in: partial + "/spool") ?? []).filter { $0.hasSuffix(".update") }
            let manifest = BackupManifest(
                createdAt: Date().wireTimestamp,
                ledgerHead: state.ledger.last?.rowHash ?? "",
                ledgerRows: state.ledger.count,
                modelFiles: Set(state.modelVersions.map(\.sha256)).count,
                updates: spooled.count
            )
            try DurableFiles.write(try WireCoding.encode(manifest, pretty: true), to: partial + "/manifest.json")
            return manifest
        }
        throw ValidationError("rounds commit faster than they can be copied: pause the runs for a moment")
    }

    private func linkSpool(_ source: String, to partial: String, of state: StoredState) throws {
        for name in DataDirectoryCheck(state: state, blobs: DirectoryBlobStore(existing: source)).spoolNamesForBackup()
        {
            do {
                try DataDirectory.place(source + "/spool/" + name, at: partial + "/spool/" + name)
            } catch {
                // It may be gone by now: its round has committed.
                guard try !DurableFiles.exists(source + "/spool/" + name) else { throw error }
            }
        }
    }
}
