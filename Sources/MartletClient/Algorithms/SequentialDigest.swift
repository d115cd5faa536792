import Crypto
import Foundation

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
