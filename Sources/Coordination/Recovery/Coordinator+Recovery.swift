import Foundation
import Logging

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
            try abandon(run: id, reason: "\(records.count) acknowledged updates were missing or damaged after a stop")
        }
        for name in check.leftovers() { unlink(blobs.spoolPath(name)) }
        recoverUploads()
    }

    /// Begins anew what no transaction keeps: every client has its whole lease again, since its last signs of life are
    /// forgotten, and a cohort is chosen of those who come from now on.
    func renewWhatMemoryHeld(run id: String) {
        guard let run = runs[id] else { return }
        for assignment in run.live {
            guard var record = assignments[assignment], record.leaseUntil != nil else { continue }
            record.leaseUntil = min(record.deadline, now.addingTimeInterval(run.lease))
            assignments[assignment] = record
        }
        guard let round = run.round, round.phase.isCollecting else { return }
        prepareSelection(run: id, terms: run.terms(of: round))
        do {
            try drive(run: id, [.arrivalsForgotten])
        } catch {
            logger.error("A selection could not begin anew", metadata: ["run.id": "\(id)", "error": "\(error)"])
        }
    }
}
