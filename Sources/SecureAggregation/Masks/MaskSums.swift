import Foundation
import Tensors

/// The helper's part of a sum: M = Σ PRG(s) − N, made block by block.
package struct MaskSum<Word: RingWord>: Sendable {
    /// Coordinates that are summed at a time, on each core.
    private static var blockCount: Int { 1 << 16 }

    private let streams: [MaskStream]
    private let coordinateCount: Int

    /// - Parameters:
    ///   - streams: The masks of the clients whose updates are in the server's sum.
    ///   - coordinateCount: d.
    package init(_ streams: [MaskStream], coordinateCount: Int) {
        self.streams = streams
        self.coordinateCount = coordinateCount
    }

    /// Makes the words and hands them on in order, as raw bytes.
    ///
    /// - Parameters:
    ///   - noise: Adds the noise of the coordinates from a place on; its negative goes into the sum.
    ///   - write: Takes the next bytes, little-endian.
    /// - Throws: What `noise` and `write` throw, ``SecureAggregationError``.
    package func write(
        noise: (_ values: inout [Int64], _ first: Int) throws -> Void,
        to write: (UnsafeRawBufferPointer) throws -> Void
    ) throws {
        let perTurn = Self.blockCount * 8
        var words = [Word](repeating: 0, count: min(perTurn, coordinateCount))
        // Sums of masks open every sum of updates: nothing of them stays in memory.
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
        let blocks = (count + Self.blockCount - 1) / Self.blockCount
        let failure = FirstFailure()
        words.withUnsafeMutableBufferPointer { buffer in
            let target = Target(buffer: buffer)
            Parallel.forEach(count: blocks) { block in
                let start = block * Self.blockCount
                let part = UnsafeMutableBufferPointer(
                    rebasing: target.buffer[start..<min(count, start + Self.blockCount)]
                )
                do {
                    for stream in streams { try stream.add(to: part, first: UInt64(first + start)) }
                } catch {
                    failure.note(error)
                }
            }
        }
        if let error = failure.error { throw error }
    }

    /// Threads write to parts of it that do not overlap.
    private struct Target: @unchecked Sendable {
        let buffer: UnsafeMutableBufferPointer<Word>
    }
}

/// The server's part: Σ y − M, read as integers of least magnitude.
package enum Unmasking {
    /// Adds one masked update's words to a block of the sum.
    package static func add<Word: RingWord>(_ bytes: UnsafeRawBufferPointer, to sum: inout [Word]) {
        for index in sum.indices { sum[index] = sum[index] &+ word(bytes, index) }
    }

    /// Takes the helper's words off and returns the integers: the sum of the updates with the helper's noise.
    package static func finish<Word: RingWord>(_ sum: [Word], helper bytes: UnsafeRawBufferPointer) -> [Int64] {
        sum.indices.map { (sum[$0] &- word(bytes, $0)).centred }
    }

    @inline(__always)
    private static func word<Word: RingWord>(_ bytes: UnsafeRawBufferPointer, _ index: Int) -> Word {
        Word(littleEndian: bytes.loadUnaligned(fromByteOffset: index * MemoryLayout<Word>.size, as: Word.self))
    }
}
