import Foundation
import Tensors

/// The helper's part of a sum: M = Σ PRG(s) − N, made block by block.
package struct MaskSum<Word: RingWord>: Sendable {
    /// How many coordinates one core sums at a time.
    private static var blockCount: Int { 1 << 16 }

    private let streams: [MaskStream]
    private let coordinateCount: Int

    /// - Parameters:
    ///   - streams: The masks of all updates in the server's sum.
    ///   - coordinateCount: d, the length of the sum.
    package init(_ streams: [MaskStream], coordinateCount: Int) {
        self.streams = streams
        self.coordinateCount = coordinateCount
    }

    /// Makes the words in order and passes them on as raw bytes.
    ///
    /// - Parameters:
    ///   - noise: Adds the helper's noise to integers, the coordinates from `first` on; it is subtracted from the words.
    ///   - write: Receives the next bytes, little-endian.
    /// - Throws: ``SecureAggregationError``, and what `noise` and `write` throw.
    package func write(
        noise: (_ values: inout [Int64], _ first: Int) throws -> Void,
        to write: (UnsafeRawBufferPointer) throws -> Void
    ) throws {
        let perTurn = Self.blockCount * 8
        var words = [Word](repeating: 0, count: min(perTurn, coordinateCount))
        // The sum of masks is erased: with it the sum of updates could be unmasked.
        defer { for index in words.indices { words[index] = 0 } }
        for start in stride(from: 0, to: coordinateCount, by: perTurn) {
            let count = min(perTurn, coordinateCount - start)
            for index in 0..<count { words[index] = 0 }
            try add(first: start, count: count, to: &words)
            var values = [Int64](repeating: 0, count: count)
            try noise(&values, start)
            for index in 0..<count { words[index] = (words[index] &- Word(residueOf: values[index])).littleEndian }
            for index in values.indices { values[index] = 0 }
            try words.withUnsafeBytes {
                try write(UnsafeRawBufferPointer(rebasing: $0[..<(count * MemoryLayout<Word>.size)]))
            }
        }
    }

    private func add(first: Int, count: Int, to words: inout [Word]) throws {
        try words.withUnsafeMutableBufferPointer { buffer in
            let target = UnsafeMutableBufferPointer(rebasing: buffer[..<count])
            try Parallel.blocks(of: target, size: Self.blockCount) { (block, part) throws in
                for stream in streams { try stream.add(to: part, first: UInt64(first + block.lowerBound)) }
            }
        }
    }
}

/// The server's part of a sum: Σ y − M, each word read as the integer of least magnitude.
package enum Unmasking {
    /// Adds the words of one masked update to a block of the sum.
    ///
    /// - Parameters:
    ///   - bytes: As many little-endian words as the block has.
    ///   - sum: The block.
    /// - Throws: ``SecureAggregationError`` `invalid_words` for another number of bytes.
    package static func add<Word: RingWord>(
        _ bytes: UnsafeRawBufferPointer,
        to sum: inout [Word]
    ) throws(SecureAggregationError) {
        try requireWords(bytes, sum)
        for index in sum.indices { sum[index] = sum[index] &+ word(bytes, index) }
    }

    /// Subtracts the helper's words from the sum.
    ///
    /// - Returns: The sum of the updates with the helper's noise, grid units.
    /// - Throws: ``SecureAggregationError`` `invalid_words` if the helper sent another number of bytes.
    package static func finish<Word: RingWord>(
        _ sum: [Word],
        helper bytes: UnsafeRawBufferPointer
    ) throws(SecureAggregationError) -> [Int64] {
        try requireWords(bytes, sum)
        return sum.indices.map { (sum[$0] &- word(bytes, $0)).centred }
    }

    /// The bytes are a peer's, and are read without further checks.
    private static func requireWords<Word: RingWord>(
        _ bytes: UnsafeRawBufferPointer,
        _ sum: [Word]
    ) throws(SecureAggregationError) {
        let expected = sum.count * MemoryLayout<Word>.size
        guard bytes.count == expected else {
            throw SecureAggregationError(
                .invalidWords,
                "a sum of \(sum.count) coordinates takes \(expected) bytes, and \(bytes.count) came"
            )
        }
    }

    @inline(__always)
    private static func word<Word: RingWord>(_ bytes: UnsafeRawBufferPointer, _ index: Int) -> Word {
        Word(littleEndian: bytes.loadUnaligned(fromByteOffset: index * MemoryLayout<Word>.size, as: Word.self))
    }
}
