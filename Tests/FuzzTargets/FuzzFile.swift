import Foundation

#if canImport(Glibc)
import Glibc
#endif

/// A small file that is written again and again, in memory where the system has such a place.
///
/// It has no name in any directory, so that nothing is left of it however the process ends.
final class FuzzFile {
    private let descriptor: Int32
    /// By which the process itself can open it.
    var path: String { "/proc/self/fd/\(descriptor)" }

    init() throws {
        let directory = FileManager.default.isWritableFile(atPath: "/dev/shm") ? "/dev/shm/" : NSTemporaryDirectory()
        let name = directory + "martlet-fuzz-\(getpid())-\(UInt32.random(in: 0 ... .max))"
        descriptor = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw CocoaError(.fileWriteUnknown) }
        unlink(name)
    }

    deinit { close(descriptor) }

    /// Replaces the file's content.
    func write(_ bytes: [UInt8]) throws {
        let written = bytes.withUnsafeBytes { pwrite(descriptor, $0.baseAddress, $0.count, 0) }
        guard written == bytes.count, ftruncate(descriptor, bytes.count) == 0 else {
            throw CocoaError(.fileWriteUnknown)
        }
    }
}
