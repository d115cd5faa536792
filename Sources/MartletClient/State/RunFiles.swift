import CLibrary
import Foundation
import MartletTransport
import WireFormat

/// What a device keeps for each run between rounds: what sparse updates left out, and control variates (SCAFFOLD).
///
/// A server may name a new run each time. So there is a limit, of runs and of bytes, and what was written longest ago makes
/// room: a run that it belonged to goes on as if the device were new to it.
struct RunFiles {
    let files: StateFiles
    let limits: ClientLimits

    private struct Kept {
        var names: [String] = []
        var byteCount = 0
        /// When the newest of the files was written, in seconds since 1970.
        var time = 0.0
    }

    /// Makes room for what a run keeps.
    ///
    /// - Parameters:
    ///   - run: Whose own files stay.
    ///   - byteCount: How much it keeps, at most.
    /// - Returns: The runs whose files were removed, the oldest first.
    /// - Throws: `ClientError` with code `server_invalid` for a run that wants more than all of the room; of this device's files.
    func makeRoom(for run: RunID, byteCount: Int) throws -> [RunID] {
        guard byteCount <= limits.keptBytes else {
            throw ClientError(
                invalid: "run \(run.text) would keep \(byteCount) bytes between rounds, over this device's limit of "
                    + "\(limits.keptBytes)"
            )
        }
        var kept = try all()
        kept[run] = nil
        var total = byteCount + kept.values.reduce(0) { $0 + $1.byteCount }
        var removed: [RunID] = []
        for (other, files) in kept.sorted(by: { ($0.value.time, $0.key.text) < ($1.value.time, $1.key.text) }) {
            guard total > limits.keptBytes || kept.count - removed.count > limits.keptRuns - 1 else { break }
            for name in files.names { try self.files.remove(name) }
            total -= files.byteCount
            removed.append(other)
        }
        return removed
    }

    private func all() throws -> [RunID: Kept] {
        guard let names = try? FileManager.default.contentsOfDirectory(atPath: files.directory) else {
            throw LocalFailure.error("read", files.directory, EIO)
        }
        var result: [RunID: Kept] = [:]
        for name in names {
            guard let run = StateFileName.run(ofFile: name) else { continue }
            var status = stat()
            guard lstat(files.path(name), &status) == 0 else { continue }
            var kept = result[run] ?? Kept()
            kept.names.append(name)
            kept.byteCount += Int(status.st_size)
            kept.time = max(kept.time, Double(status.st_mtim.tv_sec) + Double(status.st_mtim.tv_nsec) * 1e-9)
            result[run] = kept
        }
        return result
    }
}
