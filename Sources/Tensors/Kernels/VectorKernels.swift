/// Arithmetic on whole buffers of floats.
public enum VectorKernels {
    /// The squared L2 norm, accumulated in `Double`; not finite when any value is not.
    public static func squaredNorm(_ values: UnsafeBufferPointer<Float>) -> Double {
        var lanes = SIMD8<Double>(repeating: 0)
        let vectorEnd = values.count & ~7
        var index = 0
        while index < vectorEnd {
            var block = SIMD8<Float>()
            for lane in 0..<8 {
                block[lane] = values[index + lane]
            }
            let wide = SIMD8<Double>(block)
            lanes += wide * wide
            index += 8
        }
        var sum = lanes.sum()
        while index < values.count {
            sum += Double(values[index]) * Double(values[index])
            index += 1
        }
        return sum
    }

    /// The squared L2 norm of an array.
    public static func squaredNorm(_ values: [Float]) -> Double {
        values.withUnsafeBufferPointer { squaredNorm($0) }
    }

    /// Whether every value is finite.
    public static func allFinite(_ values: UnsafeBufferPointer<Float>) -> Bool {
        // The largest exponent marks infinities and NaNs; integers vectorise, and a loop with an early exit would not.
        var found: UInt32 = 0
        for value in values { found |= (value.bitPattern & 0x7F80_0000) == 0x7F80_0000 ? 1 : 0 }
        return found == 0
    }

    /// Whether every value is finite.
    public static func allFinite(_ values: [Float]) -> Bool {
        values.withUnsafeBufferPointer { allFinite($0) }
    }

    /// `y[i] += a * x[i]`.
    public static func axpy(_ a: Float, _ x: [Float], into y: inout [Float]) {
        precondition(x.count == y.count, "counts differ")
        for index in 0..<y.count {
            y[index] += a * x[index]
        }
    }

    /// `x[i] *= a`.
    public static func scale(_ x: inout [Float], by a: Float) {
        for index in 0..<x.count {
            x[index] *= a
        }
    }

    /// `x[i] - y[i]`.
    public static func difference(_ x: [Float], _ y: [Float]) -> [Float] {
        precondition(x.count == y.count, "counts differ")
        var result = x
        for index in 0..<result.count {
            result[index] -= y[index]
        }
        return result
    }
}
