import Foundation

#if canImport(Glibc)
import Glibc
#endif

/// Small files that are written again and again, in memory where the system has such a place.
enum FuzzFiles {
    /// A name of this process's own.
    static func path(_ name: String) -> String {
        let directory = FileManager.default.isWritableFile(atPath: "/dev/shm") ? "/dev/shm/" : NSTemporaryDirectory()
        return directory + "martlet-fuzz-\(getpid())-\(UInt32.random(in: 0 ... .max))-\(name)"
    }

    /// Replaces a file's content.
    static func write(_ bytes: [UInt8], to path: String) throws {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        guard descriptor >= 0 else { throw CocoaError(.fileWriteUnknown) }
        defer { close(descriptor) }
        let written = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
        guard written == bytes.count else { throw CocoaError(.fileWriteUnknown) }
    }
}
