import Foundation
import WireFormat

#if canImport(Glibc)
import Glibc
#endif

/// What is left of uploads in parts: it stays as long as its assignment may still be fulfilled.
extension Coordinator {
    /// The file that an upload gathers in.
    static let partialSuffix = ".partial"
    /// The same while the complete update is judged; a stop in between leaves it.
    static let judgedSuffix = ".judged"

    /// Removes files whose assignment has ended, once a minute.
    func removeAbandonedUploads() {
        guard isDue(nextUploadSweep, setAhead: 60) else { return }
        nextUploadSweep = now.addingTimeInterval(60)
        forEachUpload(Self.partialSuffix) { path, isLive in if !isLive { unlink(path) } }
    }

    /// Makes the files of uploads that a stop interrupted ready to be gone on with.
    func recoverUploads() {
        forEachUpload(Self.judgedSuffix) { path, isLive in
            let partial = path.dropLast(Self.judgedSuffix.count) + Self.partialSuffix
            if isLive { rename(path, String(partial)) } else { unlink(path) }
        }
        forEachUpload(Self.partialSuffix) { path, isLive in if !isLive { unlink(path) } }
    }

    private func forEachUpload(_ suffix: String, _ body: (_ path: String, _ isLive: Bool) -> Void) {
        for name in (try? FileManager.default.contentsOfDirectory(atPath: blobs.spoolDirectory)) ?? []
        where name.hasSuffix(suffix) {
            let record = assignments[String(name.dropLast(suffix.count))]
            body(blobs.spoolPath(name), record.map { $0.state.isLive && $0.deadline >= now } ?? false)
        }
    }
}
