import CLibrary
import Crypto
import Foundation
import MartletTransport

/// Hashes of files, read piece by piece.
enum FileDigest {
    /// The SHA-256 of a file.
    ///
    /// - Throws: The file system's error.
    static func sha256(_ path: String) throws -> Data {
        let descriptor = PlainFile.open(path, O_RDONLY)
        guard descriptor >= 0 else { throw LocalFailure.error("read", path, errno) }
        let file = FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
        var hash = SHA256()
        while let piece = try file.read(upToCount: 1 << 20), !piece.isEmpty { hash.update(data: piece) }
        return Data(hash.finalize())
    }
}

/// The hash of a file that is being written, as long as its bytes come in their order.
struct SequentialDigest {
    private var hash: SHA256? = SHA256()
    private var position = 0

    /// Takes the next bytes.
    mutating func update(_ bytes: UnsafeRawBufferPointer, at offset: Int) {
        guard offset == position else {
            hash = nil
            return
        }
        hash?.update(bufferPointer: bytes)
        position += bytes.count
    }

    /// The SHA-256 of all bytes; `nil` where they came out of order, as those of encodings with scales do.
    var digest: Data? { hash.map { Data($0.finalize()) } }
}
