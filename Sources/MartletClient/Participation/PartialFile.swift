import CLibrary
import Foundation
import MartletTransport

/// The file that a download gathers in, `NAME.part`, which stays when the download is cut, so that the next one goes on.
///
/// It is locked, so that two processes that share a directory never write to one file: the second gathers in a file of its
/// own, which goes with it.
final class PartialFile: Sendable {
    /// Where the bytes go.
    let path: String
    private let descriptor: Int32
    private let isKept: Bool

    /// Takes the partial file of `finalPath`.
    ///
    /// - Throws: `ClientError` with code `storage` or `disk_full`.
    init(_ finalPath: String) throws {
        let shared = finalPath + ".part"
        descriptor = PlainFile.open(shared, O_RDWR | O_CREAT)
        guard descriptor >= 0 else { throw LocalFailure.error("write", shared, errno) }
        var (held, named) = (stat(), stat())
        // Whoever had it may have given it its final name between the two calls: then the lock is one of another file.
        isKept =
            flock(descriptor, LOCK_EX | LOCK_NB) == 0 && fstat(descriptor, &held) == 0 && lstat(shared, &named) == 0
            && held.st_ino == named.st_ino
        path = isKept ? shared : shared + "-\(UUID().uuidString)"
    }

    deinit {
        if !isKept { unlink(path) }
        close(descriptor)
    }

    /// Whether a name in the cache is that of a download that has not ended.
    static func isPartial(_ name: String) -> Bool { name.contains(StateFileName.modelSuffix + ".part") }

    /// Removes a partial file that nobody is writing to.
    static func removeUnused(_ path: String) {
        let descriptor = PlainFile.open(path, O_RDONLY)
        guard descriptor >= 0 else {
            // Nobody gathers anything in a link.
            if errno == ELOOP { unlink(path) }
            return
        }
        if flock(descriptor, LOCK_EX | LOCK_NB) == 0 { unlink(path) }
        close(descriptor)
    }

    /// How much of it there is.
    ///
    /// - Throws: `ClientError` where the disk does not say: what has arrived is not wrong for that.
    func byteCount() throws -> Int {
        var status = stat()
        if stat(path, &status) == 0 { return Int(status.st_size) }
        guard errno == ENOENT else { throw LocalFailure.error("read", path, errno) }
        return 0
    }

    /// Forgets what has arrived.
    func empty() throws { try PlainFile.empty(path) }
}
