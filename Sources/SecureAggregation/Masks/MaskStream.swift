import Crypto
import CryptoExtras
package import Foundation

/// The mask of one seed: AES-256-CTR with counter block 0, words of b bits taken consecutively, little-endian.
///
/// A seed is used for one masked vector: two vectors under one seed reveal their difference.
package struct MaskStream: Sendable {
    /// Bytes of a seed.
    package static let seedByteCount = 32
    /// Bytes of the stream that are made at a time; they stay in a core's second cache.
    private static let blockByteCount = 64 << 10

    private let key: SymmetricKey

    /// - Throws: ``SecureAggregationError`` unless the seed has 32 bytes.
    package init(seed: some ContiguousBytes) throws(SecureAggregationError) {
        key = SymmetricKey(data: seed)
        guard key.bitCount == Self.seedByteCount * 8 else {
            throw SecureAggregationError(.outOfRange, "a seed has 32 bytes")
        }
    }

    /// Adds the mask to words of the ring.
    ///
    /// - Parameters:
    ///   - words: The coordinates from `first` on.
    ///   - first: The place of the first of them.
    /// - Throws: ``SecureAggregationError`` `random_source_failed`.
    package func add<Word: RingWord>(
        to words: UnsafeMutableBufferPointer<Word>,
        first: UInt64 = 0
    ) throws(SecureAggregationError) {
        try combine(words, first) { $0 &+ $1 }
    }

    /// Takes the mask off again.
    package func subtract<Word: RingWord>(
        from words: UnsafeMutableBufferPointer<Word>,
        first: UInt64 = 0
    ) throws(SecureAggregationError) {
        try combine(words, first) { $0 &- $1 }
    }

    @inline(__always)
    private func combine<Word: RingWord>(
        _ words: UnsafeMutableBufferPointer<Word>,
        _ first: UInt64,
        _ operation: (Word, Word) -> Word
    ) throws(SecureAggregationError) {
        let size = MemoryLayout<Word>.size
        let perBlock = Self.blockByteCount / size
        var done = 0
        while done < words.count {
            let count = min(perBlock, words.count - done)
            var stream = try bytes(from: (first + UInt64(done)) * UInt64(size), count: count * size)
            // A mask that stays in memory opens what it masked.
            defer { stream.resetBytes(in: 0..<stream.count) }
            stream.withUnsafeBytes { raw in
                for index in 0..<count {
                    let mask = Word(littleEndian: raw.loadUnaligned(fromByteOffset: index * size, as: Word.self))
                    words[done + index] = operation(words[done + index], mask)
                }
            }
            done += count
        }
    }

    /// Bytes of the stream.
    package func bytes(from offset: UInt64, count: Int) throws(SecureAggregationError) -> Data {
        let block = offset / 16
        let skipped = Int(offset % 16)
        var nonce = [UInt8](repeating: 0, count: 16)
        for index in 0..<8 { nonce[8 + index] = UInt8(truncatingIfNeeded: block >> UInt64(56 - 8 * index)) }
        do {
            let stream = try AES._CTR.encrypt(
                Data(count: skipped + count),
                using: key,
                nonce: AES._CTR.Nonce(nonceBytes: nonce)
            )
            return skipped == 0 ? stream : Data(stream.dropFirst(skipped))
        } catch {
            throw SecureAggregationError(.randomSourceFailed, "the mask could not be made")
        }
    }
}
