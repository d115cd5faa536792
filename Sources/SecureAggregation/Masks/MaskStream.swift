import Crypto
import CryptoExtras
package import Foundation

/// The mask of one seed: the key stream of AES-256-CTR from counter block 0, read as consecutive little-endian words of b bits.
///
/// A seed masks one vector only: two vectors under one seed reveal their difference.
package struct MaskStream: Sendable {
    /// Bytes of a seed.
    package static let seedByteCount = 32
    /// How many bytes of the stream are made at a time: few enough for a core's second-level cache.
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
    ///   - first: The coordinate of the first word.
    /// - Throws: ``SecureAggregationError`` `random_source_failed`.
    package func add<Word: RingWord>(
        to words: UnsafeMutableBufferPointer<Word>,
        first: UInt64 = 0
    ) throws(SecureAggregationError) {
        try combine(words, first) { $0 &+ $1 }
    }

    /// Subtracts the mask again; parameters and errors as for ``add(to:first:)``.
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
            // The mask is erased: with it the vector could be unmasked.
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

    /// `count` bytes of the stream from a byte offset on.
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
