import Foundation
import Logging
import WireFormat

#if canImport(Glibc)
import Glibc
#endif

extension Coordinator {
    /// Holds the files against the state that was read: what is left over goes, and an attempt that lost an acknowledged
    /// update is abandoned, since its result would not be that of the updates that were accepted.
    func verifyFiles(_ state: StoredState) throws {
        let check = DataDirectoryCheck(state: state, blobs: blobs)
        let lost = Dictionary(grouping: check.lostUpdates(), by: \.runId)
        for (id, records) in lost.sorted(by: { $0.key < $1.key }) {
            let result = runs[id]?.round.map { "\(id)-\($0.number)-\($0.attempt).result" }
            // A result that is on disk was made of all of them.
            if let result, FileManager.default.fileExists(atPath: blobs.spoolPath(result)) { continue }
            logger.error(
                "Acknowledged updates are missing from the spool; their attempt is abandoned",
                metadata: ["run.id": "\(id)", "count": "\(records.count)"]
            )
            // What this directory lost another one may have: a backup leaves these files out. So a charge stays.
            guard let run = runs[id], !budgets.trust.isHalted(run.specification) else {
                if let round = runs[id]?.round { budgets.trust.attemptsWithLostUpdates.insert(ChargedAttempt(round)) }
                continue
            }
            // How many there were of a secret draw is in the server's log alone.
            let count = run.specification.privacy.hasSecretDraw ? "" : "\(records.count) "
            try abandon(
                run: id,
                reason: "\(count)acknowledged updates were missing or damaged after a stop",
                cost: .apart
            )
        }
        for name in check.leftovers() { unlink(blobs.spoolPath(name)) }
        removePartialFiles()
        try abandonAfterRestore()
        for directory in [blobs.noiseDirectory, noiseKeyFiles.directory, blobs.spoolDirectory] {
            BlobStore.distrust(directory)
        }
        dropUnneededNoise()
        recoverUploads()
        verifyModels()
    }

    /// Abandons every open attempt of private runs at the first start on what `martlet restore` made, each with its cost.
    ///
    /// Whatever the second record says: the server that is gone may have had work of them handed out, and devices that released an
    /// update for it would release another one here, for one charge. While the ledger's alarm stands, nothing moves; its
    /// acknowledgement abandons them.
    private func abandonAfterRestore() throws {
        budgets.trust.isRestored = access(configuration.restoredNotePath, F_OK) == 0
        guard budgets.trust.isRestored, budgets.trust.alarm == nil else { return }
        try abandonPrivateAttempts(reason: "the server was restored from a backup", cost: .apart)
        consumeRestoredNote()
    }

    /// Removes the note of a restore when all that it is for is stored: an alarm, and a record that cannot be read, still need it.
    func consumeRestoredNote() {
        guard budgets.trust.isRestored, !budgets.trust.isInQuestion else { return }
        do {
            try BlobStore.removeDurably([configuration.restoredNotePath], in: configuration.dataDirectory)
            budgets.trust.isRestored = false
        } catch {
            // The next tick tries again; until then a start would abandon what has opened since.
            if let failure = StorageFailure(error) { storage.note(failure) }
        }
    }

    /// Removes what a stop left of files that were being written outside the spool.
    private func removePartialFiles() {
        let places =
            [configuration.ledgerHeadPath, configuration.noiseKeyPath].map {
                (($0 as NSString).deletingLastPathComponent, ($0 as NSString).lastPathComponent)
            } + [(configuration.dataDirectory, "address"), (configuration.dataDirectory, "admin-token")]
        for (directory, name) in places {
            for found in (try? SpooledFile.names(in: directory)) ?? []
            where found.hasPrefix(name + ".") && found.contains(".part-w_") {
                unlink(directory + "/" + found)
            }
        }
        for name in (try? SpooledFile.names(in: configuration.dataDirectory + "/blobs")) ?? [] where name.count == 2 {
            let directory = configuration.dataDirectory + "/blobs/" + name
            for found in (try? SpooledFile.names(in: directory)) ?? [] where found.contains(".part-w_") {
                unlink(directory + "/" + found)
            }
        }
        let noise = configuration.dataDirectory + "/noise"
        for found in (try? SpooledFile.names(in: noise)) ?? [] where found.contains(".part-w_") {
            unlink(noise + "/" + found)
        }
    }

    /// With privacy mode `local` nobody knows after a restart whose updates had begun to come: no ended work is given again.
    func barAfterRestart(run id: String) {
        guard let run = runs[id], run.specification.privacy.mode == .local else { return }
        for record in run.assignmentIDs.compactMap({ assignments[$0] })
        where !record.state.isLive && record.state != .accepted && run.isOfOpenAttempt(record) {
            runs[id]?.members.bar(record.clientId)
        }
    }

    /// Begins anew what no transaction keeps: every client has its whole lease again, since its last signs of life are
    /// forgotten, and a cohort is chosen of those who come from now on.
    func renewWhatMemoryHeld(run id: String) {
        guard let run = runs[id] else { return }
        for assignment in run.live {
            guard var record = assignments[assignment], record.leaseUntil != nil else { continue }
            record.leaseUntil = min(record.deadline, now.addingTimeInterval(run.lease))
            keep(record)
        }
        guard let round = run.round, round.phase.isCollecting else { return }
        prepareSelection(run: id, terms: run.terms(of: round))
        countDrawIfNeeded(run: id)
        do {
            try drive(run: id, [.arrivalsForgotten])
        } catch {
            logger.error("A selection could not begin anew", metadata: ["run.id": "\(id)", "error": "\(error)"])
        }
    }
}
