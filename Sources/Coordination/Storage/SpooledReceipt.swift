import Foundation
import WireFormat

#if canImport(Glibc)
import Glibc
#endif

/// What is known about the bytes of an accepted update of a private run: a file beside the update in the spool.
///
/// Hash, size and example count are exact functions of a client's un-noised update. A dictionary of candidates turns each of
/// them back into the client's data, so none of them may outlive the update: the database, its log and backups know the
/// state only. The file is durable before the row `accepted`, and is deleted with the update.
package struct SpooledReceipt: Codable, Equatable, Sendable {
    package var sha256: String
    package var byteCount: Int
    package var exampleCount: Int

    /// The name's end, after the assignment's id.
    package static let suffix = ".receipt"
    /// Every file has this size, whatever its numbers: the size of the spool is a metric.
    static let fileByteCount = 192

    package init(sha256: String, byteCount: Int, exampleCount: Int) {
        self.sha256 = sha256
        self.byteCount = byteCount
        self.exampleCount = exampleCount
    }

    /// Writes the file and waits until its bytes are on the disk; its name is durable once the directory is synced, as
    /// the renaming of the update does.
    ///
    /// A file that a stop cut off belongs to no accepted row, and the next try overwrites it.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed`.
    package func write(to path: String) throws {
        var data = try WireCoding.encode(self)
        if data.count < Self.fileByteCount {
            data.append(contentsOf: [UInt8](repeating: 0x20, count: Self.fileByteCount - data.count))
        }
        let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw DurableFiles.failure(.create, path, .update) }
        defer { close(descriptor) }
        guard data.withUnsafeBytes({ DurableFiles.writeAll($0, to: descriptor) }), fdatasync(descriptor) == 0 else {
            throw DurableFiles.failure(.write, path, .update)
        }
    }

    /// Reads a file; `nil` where there is none, or none that is whole.
    ///
    /// - Throws: ``CoordinationError`` with code `storage_failed` where the disk does not give it now.
    package static func read(path: String) throws(CoordinationError) -> SpooledReceipt? {
        let data: Data
        do throws(CoordinationError) {
            data = try Descriptor(reading: path, role: .update).read(4096, at: 0)
        } catch {
            guard error.storage?.isMissing == true else { throw error }
            return nil
        }
        return try? WireCoding.decode(SpooledReceipt.self, from: data)
    }
}
