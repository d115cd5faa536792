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
}
