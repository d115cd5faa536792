import Tensors

/// A pseudo-random rotation of blocks: two rounds of random signs and a fast Walsh-Hadamard transform.
///
/// A rotated block looks like independent normal draws of one variance, whatever it held before, and a few bits a value are
/// enough for those. DRIVE proves its bounds for one round in the limit. The second round makes blocks with few values other
/// than zero behave as well.
enum RandomRotation {
    private static let roundCount = 2

    /// The sizes of a tensor's blocks, each a power of two; the last block is padded with zeros.
    static func blockSizes(of count: Int) -> [Int] {
        var sizes = [Int](repeating: UpdateEncoding.rotationBlock, count: count / UpdateEncoding.rotationBlock)
        let rest = count % UpdateEncoding.rotationBlock
        if rest > 0 {
            var size = 8
            while size < rest { size *= 2 }
            sizes.append(size)
        }
        return sizes
    }

    /// Rotates a block in place.
    ///
    /// - Parameters:
    ///   - values: A power of two of values.
    ///   - seed: The block's own seed, from ``seed(_:tensor:block:)``.
    static func rotate(_ values: UnsafeMutableBufferPointer<Float>, seed: UInt64) {
        for round in 0..<roundCount {
            flip(values, seed: seed, round: round)
            transform(values)
        }
    }

    /// Undoes ``rotate(_:seed:)``.
    static func rotateBack(_ values: UnsafeMutableBufferPointer<Float>, seed: UInt64) {
        for round in (0..<roundCount).reversed() {
            transform(values)
            flip(values, seed: seed, round: round)
        }
    }

    /// The seed of one block, from the seed of the file.
    static func seed(_ seed: UInt64, tensor: Int, block: Int) -> UInt64 {
        var mixed = seed ^ (UInt64(tensor) &* 0x9E37_79B9_7F4A_7C15) ^ (UInt64(block) &* 0xD1B5_4A32_D192_ED03)
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        return mixed ^ (mixed >> 27)
    }

    private static func flip(_ values: UnsafeMutableBufferPointer<Float>, seed: UInt64, round: Int) {
        var generator = Xoshiro256StarStar(seed: seed &+ UInt64(round))
        var bits: UInt64 = 0
        for index in 0..<values.count {
            if index & 63 == 0 { bits = generator.next() }
            if bits & 1 == 1 { values[index] = -values[index] }
            bits >>= 1
        }
    }

    /// The orthonormal Walsh-Hadamard transform, its own inverse.
    private static func transform(_ values: UnsafeMutableBufferPointer<Float>) {
        var width = 1
        while width < values.count {
            var start = 0
            while start < values.count {
                for index in start..<(start + width) {
                    let (a, b) = (values[index], values[index + width])
                    values[index] = a + b
                    values[index + width] = a - b
                }
                start += 2 * width
            }
            width *= 2
        }
        let scale = 1 / Float(values.count).squareRoot()
        for index in 0..<values.count { values[index] *= scale }
    }
}

/// The quantisation points of least squared error for standard normal values, at 1, 2 and 4 bits (Lloyd-Max).
///
/// Source: Max 1960, "Quantizing for minimum distortion", table 1.
enum NormalQuantizer {
    /// The positive points; the others are their negatives.
    static func points(bits: Int) -> [Float] {
        switch bits {
        case 1: [0.797_884_6]
        case 2: [0.452_8, 1.510_4]
        default: [0.128_4, 0.388_1, 0.656_8, 0.942_3, 1.256, 1.618, 2.069, 2.733]
        }
    }

    /// The code of a value: the sign's bit above the index of the nearest positive point.
    static func code(_ value: Float, boundaries: [Float], bits: Int) -> UInt8 {
        let magnitude = abs(value)
        var index: UInt8 = 0
        for boundary in boundaries where magnitude > boundary { index += 1 }
        return value < 0 ? index | 1 << UInt8(bits - 1) : index
    }

    /// The magnitudes half-way between neighbouring points.
    static func boundaries(bits: Int) -> [Float] {
        let points = points(bits: bits)
        return zip(points, points.dropFirst()).map { ($0 + $1) / 2 }
    }

    /// The value of every code.
    static func values(bits: Int) -> [Float] {
        let points = points(bits: bits)
        return points + points.map { -$0 }
    }
}
