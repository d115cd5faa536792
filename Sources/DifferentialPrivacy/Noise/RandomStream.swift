package import Crypto
import CryptoExtras
import Foundation

/// Uniform random bits from AES-256-CTR: one key, many independent streams.
///
/// The upper half of the counter is the stream's number, so two streams never share a block.
struct RandomStream {
    private let key: SymmetricKey
    private let stream: UInt64
    private var counter: UInt64 = 0
    private var buffer = Data()
    private var position = 0

    init(key: SymmetricKey, stream: UInt64) {
        self.key = key
        self.stream = stream
    }

    /// 64 uniform bits.
    mutating func next() throws(PrivacyError) -> UInt64 {
        if position == buffer.count { try refill() }
        defer { position += 8 }
        return buffer.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: position, as: UInt64.self) }
    }

    /// Uniform on 0..<bound, exactly: by rejection.
    mutating func below(_ bound: UInt64) throws(PrivacyError) -> UInt64 {
        precondition(bound > 0, "the bound must be positive")
        let limit = UInt64.max - (UInt64.max % bound + 1) % bound
        while true {
            let value = try next()
            if value <= limit { return value % bound }
        }
    }

    /// Overwrites all buffered bits, used and unused; the next draw fills the buffer again.
    mutating func wipe() {
        buffer.resetBytes(in: 0..<buffer.count)
        position = buffer.count
    }

    private mutating func refill() throws(PrivacyError) {
        var nonce = [UInt8](repeating: 0, count: 16)
        for index in 0..<8 {
            nonce[index] = UInt8(truncatingIfNeeded: stream >> (56 - 8 * UInt64(index)))
            nonce[index + 8] = UInt8(truncatingIfNeeded: counter >> (56 - 8 * UInt64(index)))
        }
        do {
            wipe()
            buffer = try AES._CTR.encrypt(Data(count: 4096), using: key, nonce: AES._CTR.Nonce(nonceBytes: nonce))
        } catch {
            throw .randomSourceFailed
        }
        counter += 256
        position = 0
    }
}
