package import DifferentialPrivacy

/// Turns a device's contribution into the integers that are masked, within exact bounds.
///
/// Each block (an update, metrics, a clipping bit, counts) has its own bound Kᵢ, and Σ Kᵢ² ≤ K² (Σ Kᵢ ≤ K in L1). The bounds are checked in integers
/// after rounding, so that the sensitivity is K whatever rounding did.
package struct ContributionEncoder: Sendable {
    /// One part of a contribution, in parameter units.
    package struct Block: Sendable {
        package var values: [Float]
        /// Kᵢ² / K², from 0 to 1; in L1 Kᵢ / K.
        package var share: Double

        package init(_ values: [Float], share: Double = 1) {
            self.values = values
            self.share = share
        }
    }

    private let grid: NoiseGrid
    private let coordinateBound: Int64

    /// - Parameters:
    ///   - grid: The step and the norm K.
    ///   - coordinateBound: B, in grid units.
    package init(grid: NoiseGrid, coordinateBound: UInt64) {
        self.grid = grid
        self.coordinateBound = Int64(clamping: coordinateBound)
    }

    /// Rounds, bounds and concatenates the blocks.
    ///
    /// - Returns: Shape `[sum of the blocks' counts]`, grid units, with Σ v² ≤ K² (Σ |v| ≤ K in L1) and |v| ≤ B.
    /// - Throws: ``SecureAggregationError`` `out_of_range` if shares add up to more than 1 or a value is not finite.
    package func encode(_ blocks: [Block]) throws(SecureAggregationError) -> [Int64] {
        guard blocks.allSatisfy({ $0.share >= 0 }), blocks.reduce(0, { $0 + $1.share }) <= 1 else {
            throw SecureAggregationError(.outOfRange, "the blocks' shares of the bound add up to more than 1")
        }
        guard blocks.allSatisfy({ $0.values.allSatisfy(\.isFinite) }) else {
            throw SecureAggregationError(.outOfRange, "a value is not finite")
        }
        let isL1 = grid.distribution.norm == .l1
        var integers: [Int64] = []
        integers.reserveCapacity(blocks.reduce(0) { $0 + $1.values.count })
        for block in blocks {
            // A part has the root of its share of K.
            let share = isL1 ? block.share * block.share : block.share
            let part = block.share == 1 ? grid : grid.part(share: share)
            // Reducing a coordinate to B only lowers the norm.
            for value in part.quantize(block.values) {
                integers.append(max(-coordinateBound, min(coordinateBound, value)))
            }
        }
        let measure = integers.reduce(UInt128(0)) { sum, value in
            let magnitude = UInt128(value.magnitude)
            return sum + (isL1 ? magnitude : magnitude * magnitude)
        }
        guard grid.shrinkFactor(measure: measure) == 1 else {
            throw SecureAggregationError(.outOfRange, "the contribution is over its bound")
        }
        return integers
    }
}

/// Masks a contribution's integers.
package enum Masking {
    /// y = x + PRG(s) mod 2ᵇ, as the little-endian bytes of the file's tensor.
    package static func mask<Word: RingWord>(
        _ integers: [Int64],
        as type: Word.Type = Word.self,
        with stream: MaskStream
    ) throws(SecureAggregationError) -> [UInt8] {
        var words = integers.map { Word(residueOf: $0) }
        defer { for index in words.indices { words[index] = 0 } }
        var failure: SecureAggregationError?
        words.withUnsafeMutableBufferPointer { buffer in
            do throws(SecureAggregationError) { try stream.add(to: buffer) } catch { failure = error }
        }
        if let failure { throw failure }
        for index in words.indices { words[index] = words[index].littleEndian }
        return words.withUnsafeBytes(Array.init)
    }
}
