import Crypto
import Foundation

/// Hashes of files, read piece by piece.
enum FileDigest {
    /// The SHA-256 of a file.
    ///
    /// - Throws: The file system's error.
    static func sha256(_ path: String) throws -> Data {
        let file = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
        defer { try? file.close() }
        var hash = SHA256()
        while let piece = try file.read(upToCount: 1 << 20), !piece.isEmpty { hash.update(data: piece) }
        return Data(hash.finalize())
    }
}
