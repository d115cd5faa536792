import Foundation

#if canImport(Glibc)
import Glibc
#endif

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
    /// - Throws: ``ClientError`` with code `storage`.
    init(_ finalPath: String) throws {
        let shared = finalPath + ".part"
        descriptor = open(shared, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw ClientError(code: "storage", message: "cannot write \(shared)") }
        var (held, named) = (stat(), stat())
        // Whoever had it may have given it its final name between the two calls: then the lock is one of another file.
        isKept =
            flock(descriptor, LOCK_EX | LOCK_NB) == 0 && fstat(descriptor, &held) == 0 && stat(shared, &named) == 0
            && held.st_ino == named.st_ino
        path = isKept ? shared : shared + "-\(UUID().uuidString)"
    }

    deinit {
        if !isKept { unlink(path) }
        close(descriptor)
    }

    /// How much of it there is.
    var byteCount: Int { FileManager.default.byteCount(atPath: path) }

    /// Forgets what has arrived.
    func empty() { truncate(path, 0) }
}
