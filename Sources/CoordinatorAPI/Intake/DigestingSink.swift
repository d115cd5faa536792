import Crypto
import HTTPServing
import Synchronization

/// Hashes the bytes of one request on their way to another sink, where the request names their digest.
final class DigestingSink: BodySink {
    private let next: PartialUpload
    private let hash: Mutex<SHA256?>

    init(_ next: PartialUpload, isHashed: Bool) {
        self.next = next
        hash = Mutex(isHashed ? SHA256() : nil)
    }

    func write(_ bytes: UnsafeRawBufferPointer) throws {
        try next.write(bytes)
        hash.withLock { $0?.update(bufferPointer: bytes) }
    }

    /// The SHA-256 of what was written.
    func digest() -> [UInt8] { hash.withLock { $0.map { Array($0.finalize()) } ?? [] } }
}
