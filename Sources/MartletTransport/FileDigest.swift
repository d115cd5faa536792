import CLibrary
import Crypto
package import Foundation
import Tensors

/// Hashes of files, read piece by piece.
package enum FileDigest {
    /// The SHA-256 of a file.
    ///
    /// - Throws: The file system's error.
    package static func sha256(_ path: String) throws -> Data {
        let descriptor = PlainFile.open(path, O_RDONLY)
        guard descriptor >= 0 else { throw LocalFailure.error("read", path, errno) }
        let file = FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
        var hash = SHA256()
        while let piece = try file.read(upToCount: 1 << 20), !piece.isEmpty { hash.update(data: piece) }
        return Data(hash.finalize())
    }

    /// The SHA-256 of a file, in hexadecimal.
    ///
    /// - Throws: The file system's error.
    package static func hexadecimal(_ path: String) throws -> String { try sha256(path).hexadecimal }
}
