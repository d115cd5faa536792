import ArgumentParser
import Coordination
import Foundation
import WireFormat

/// A data directory made of a backup.
struct RestoreCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "restore",
        abstract: "Make a data directory of a backup.",
        discussion: """
            The backup is checked first, every file by its hash. What happened after it was made is not known to the restored
            server: clients may send updates again that were counted, and privacy that was spent is missing from the ledger.
            """
    )

    @Argument(help: "A backup made by martlet backup.") var source: String
    @Option(help: "The data directory to make; must not exist, or be empty.") var dataDir: String

    func run() throws {
        let backup = DataDirectory(path: source)
        try backup.requireDatabase()
        let present = (try? FileManager.default.contentsOfDirectory(atPath: dataDir)) ?? []
        guard present.isEmpty else {
            throw ValidationError("\(dataDir) is not empty; restore beside it and move the old one away yourself")
        }
        let errors = backup.findings(isDeep: true).filter { $0.severity == "error" }
        guard errors.isEmpty else {
            for finding in errors { print("error  \(finding.message)") }
            throw ValidationError("the backup is damaged; nothing was written")
        }
        let partial = dataDir + ".partial"
        try? FileManager.default.removeItem(atPath: partial)
        do {
            try copyAll(to: partial)
            if FileManager.default.fileExists(atPath: dataDir) { try FileManager.default.removeItem(atPath: dataDir) }
            try FileManager.default.moveItem(atPath: partial, toPath: dataDir)
        } catch {
            try? FileManager.default.removeItem(atPath: partial)
            throw error
        }
        let manifest = FileManager.default.contents(atPath: source + "/manifest.json").flatMap {
            try? WireCoding.decode(BackupManifest.self, from: $0)
        }
        print("restored \(dataDir) as of \(manifest?.createdAt ?? "an unknown time")")
        if manifest?.ledgerRows ?? 1 > 0 {
            print(
                "privacy spent after that is not in its ledger: lower the budgets by it before you start a private run "
                    + "(PATCH /v1/populations/{population}/budget)"
            )
        }
    }

    /// Copies, so that neither directory changes with the other.
    private func copyAll(to partial: String) throws {
        let manager = FileManager.default
        try manager.createDirectory(
            atPath: partial,
            withIntermediateDirectories: true,
            attributes: [.posixPermissions: 0o700]
        )
        for name in ["martlet.sqlite", "blobs", "spool"] where manager.fileExists(atPath: source + "/" + name) {
            try manager.copyItem(atPath: source + "/" + name, toPath: partial + "/" + name)
        }
        // Says to the server, and to whoever looks, that the ledger may be older than what was spent.
        if let manifest = manager.contents(atPath: source + "/manifest.json") {
            try BlobStore.writeDurably(manifest, to: partial + "/restored.json")
        }
    }
}
