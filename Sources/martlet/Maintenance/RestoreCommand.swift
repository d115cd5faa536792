import ArgumentParser
import Coordination
import Foundation
import SQLiteStorage
import WireFormat

/// A data directory made of a backup.
struct RestoreCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "restore",
        abstract: "Make a data directory of a backup.",
        discussion: """
            The backup is checked first, every file by its hash. What happened after it was made is not known to the restored
            server: clients may send updates again that were counted.

            Privacy that was spent after it is missing from its ledger. The lost directory's second record of the ledger
            (ledger.head, or wherever ledger_head put it) still knows: give it with --ledger-head, or leave it alone in the
            directory to make. If it agrees with the backup, nothing was lost and the server goes on; else, and where there is
            no such record, the server opens no private round until an administrator has called
            POST /v1/ledger/acknowledgement, which charges again what the record knows.
            """
    )

    @Argument(help: "A backup made by martlet backup.") var source: String
    @Option(
        help:
            "The data directory to make; must not exist, be empty (a new volume, say), or hold nothing but ledger.head.",
        transform: DataDirectory.withoutSlash
    )
    var dataDir: String
    @Option(help: "The lost server's second record of the privacy ledger.") var ledgerHead: String?
    @Flag(help: "You know that no privacy was spent after the backup was made, and vouch for it.")
    var nothingChargedSince = false

    func validate() throws {
        guard ledgerHead == nil || !nothingChargedSince else {
            throw ValidationError("--ledger-head says what was charged: --nothing-charged-since has no place beside it")
        }
    }

    func run() throws {
        let backup = DataDirectory(path: source)
        try backup.requireDatabase(of: "a backup that martlet backup has made")
        let present = try DurableFiles.names(in: dataDir) ?? []
        guard present.allSatisfy({ Self.expected.contains($0) }) else {
            throw ValidationError("\(dataDir) is not empty; restore beside it and move the old one away yourself")
        }
        let errors = backup.findings(isDeep: true).filter { $0.severity == .error }
        guard errors.isEmpty else {
            for finding in errors { print("error  \(finding.message)") }
            guard !errors.contains(where: { $0.code == Finding.schemaTooNew }) else {
                throw ValidationError(
                    "this version cannot read the backup; restore it with the version that made it. Nothing was written"
                )
            }
            throw ValidationError("the backup is damaged; nothing was written")
        }
        let known = ledgerHead ?? (present.contains("ledger.head") ? dataDir + "/ledger.head" : nil)
        let ledger = try self.ledger(of: backup)
        // A directory that is there stays: it may be a volume, which cannot be renamed, in a place where nothing can be made.
        let isThere = try DurableFiles.exists(dataDir)
        let partial = isThere ? dataDir + "/" + Self.unfinished : dataDir + ".partial"
        try? FileManager.default.removeItem(atPath: partial)
        let standing: String
        do {
            try copyAll(to: partial)
            standing = try placeLedgerHead(known, of: ledger, in: partial)
            if isThere {
                try DurableFiles.publishContents(of: partial, in: dataDir, last: "martlet.sqlite")
            } else {
                try DurableFiles.publishDirectory(partial, as: dataDir)
            }
        } catch {
            try? FileManager.default.removeItem(atPath: partial)
            throw error
        }
        print("restored \(dataDir) as of \(try backup.manifest()?.createdAt ?? "an unknown time")")
        guard !ledger.rows.isEmpty else { return }
        print(standing)
        guard standing.contains(Self.acknowledgement) else { return }
        print("when the server runs, with an administrator's token in MARTLET_TOKEN:")
        print(
            "  curl -X POST -H \"Authorization: Bearer $MARTLET_TOKEN\" -H \"Content-Type: application/json\" "
                + "-d '{\"reason\": \"WHY\"}' "
                + "$MARTLET_URL\(Self.acknowledgement)"
        )
    }

    private static let acknowledgement = "/v1/ledger/acknowledgement"

    /// What a restore that was interrupted leaves.
    private static let unfinished = ".restoring"
    /// What may lie in the directory to make.
    private static let expected: Set<String> = ["ledger.head", "lost+found", unfinished]

    private func ledger(of backup: DataDirectory) throws -> PrivacyLedger {
        let inspection = try SQLiteInspection(path: backup.database)
        let state = try inspection.state()
        try inspection.close()
        return try PrivacyLedger(verifying: state?.ledger ?? [])
    }

    /// Puts the second record into the new directory.
    ///
    /// - Returns: What it means for private runs.
    private func placeLedgerHead(_ path: String?, of ledger: PrivacyLedger, in partial: String) throws -> String {
        if nothingChargedSince {
            try LedgerHead(ledger).write(path: partial + "/ledger.head")
            return "its privacy ledger is taken for complete, as you vouched"
        }
        guard let path, let head = try LedgerHead.read(path: path) else {
            if let path { throw ValidationError("there is no second record of the ledger at \(path)") }
            return "no second record says whether privacy was spent after that: private rounds wait for "
                + "POST /v1/ledger/acknowledgement with a reason; lower the budgets by what was spent first "
                + "(PATCH /v1/populations/{population}/budget). With the lost directory's ledger.head: --ledger-head"
        }
        try head.write(path: partial + "/ledger.head")
        guard !head.isBehind(ledger) else {
            return
                "the second record is older than the backup, and does not say whether privacy was spent after that: private rounds "
                + "wait for POST /v1/ledger/acknowledgement with a reason"
        }
        return head.contradiction(of: ledger).map { reason in
            "\(reason). Private rounds wait for POST /v1/ledger/acknowledgement with a reason, which charges what was lost again"
        } ?? "its privacy ledger is complete: the second record agrees"
    }

    /// Copies, so that neither directory changes with the other.
    private func copyAll(to partial: String) throws {
        let manager = FileManager.default
        try manager.createDirectory(
            atPath: partial,
            withIntermediateDirectories: true,
            attributes: [.posixPermissions: 0o700]
        )
        for name in ["martlet.sqlite", "blobs", "spool"] where try DurableFiles.exists(source + "/" + name) {
            try manager.copyItem(atPath: source + "/" + name, toPath: partial + "/" + name)
        }
        // Says to the server, and to whoever looks, that the ledger may be older than what was spent.
        let note = try DurableFiles.readIfPresent(source + "/manifest.json") ?? Data("{}".utf8)
        try DurableFiles.write(note, to: partial + "/restored.json")
    }
}
