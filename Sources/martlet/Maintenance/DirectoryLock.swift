import ArgumentParser
import Foundation

#if canImport(Glibc)
import Glibc
#endif

/// Keeps a second server off the same data directory.
struct DirectoryLock {
    private let descriptor: Int32

    init(directory: String) throws {
        descriptor = open(directory + "/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw Failure(
                "cannot write into the data directory \(directory): \(String(cString: strerror(errno)))",
                advice: "Start the server as the directory's owner, or give --data-dir another one."
            )
        }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            close(descriptor)
            let address = (try? String(contentsOfFile: directory + "/address", encoding: .utf8))?
                .trimmingCharacters(in: .whitespacesAndNewlines)
            throw Failure(
                "another server uses the data directory \(directory)" + (address.map { ", at \($0)" } ?? ""),
                advice: "Use that one, stop it first, or give --data-dir another directory."
            )
        }
    }

    func release() { close(descriptor) }

    /// Whether a server holds the directory now.
    static func isHeld(_ directory: String) -> Bool {
        let descriptor = open(directory + "/lock", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        return flock(descriptor, LOCK_SH | LOCK_NB) != 0
    }
}
