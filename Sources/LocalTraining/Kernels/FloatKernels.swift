/// Exponentials and their relatives over whole buffers of floats.
///
/// Written without branches, calls or traps in the loop, so that the compiler vectorises them for whatever the build
/// targets. Accurate to about 2 units in the last place over the whole range.
enum FloatKernels {
    /// `x[i] = exp(x[i] - shift)`; arguments below -87 give `exp(-87)`, which is 1.6e-38.
    static func exponential(_ x: UnsafeMutablePointer<Float>, minus shift: Float, count: Int) {
        for index in 0..<count { x[index] = exponential(x[index] - shift) }
    }

    /// `x[i] = 1 / (1 + exp(-x[i]))`.
    static func sigmoid(_ x: UnsafeMutablePointer<Float>, count: Int) {
        for index in 0..<count { x[index] = 1 / (1 + exponential(-x[index])) }
    }

    /// `y[i] = tanh(x[i])`, by the rational approximation of degree 13/6 that Eigen uses too.
    static func hyperbolicTangent(_ x: UnsafePointer<Float>, into y: UnsafeMutablePointer<Float>, count: Int) {
        for index in 0..<count {
            let clamped = max(min(x[index], 7.905_311), -7.905_311)
            let square = clamped * clamped
            var above: Float = -2.760_768_477_423_55e-16
            above = above * square + 2.000_187_904_824_77e-13
            above = above * square - 8.604_671_522_137_35e-11
            above = above * square + 5.122_297_090_371_14e-08
            above = above * square + 1.485_722_357_179_79e-05
            above = above * square + 6.372_619_288_754_36e-04
            above = above * square + 4.893_524_558_917_86e-03
            var below: Float = 1.198_258_394_667_02e-06
            below = below * square + 1.185_347_056_866_54e-04
            below = below * square + 2.268_434_632_439_00e-03
            below = below * square + 4.893_525_185_543_85e-03
            y[index] = clamped * above / below
        }
    }

    /// The sum, in eight lanes.
    static func sum(_ x: UnsafePointer<Float>, count: Int) -> Float {
        var lanes = SIMD8<Float>(repeating: 0)
        let end = count & ~7
        var index = 0
        while index < end {
            lanes += load(x + index)
            index += 8
        }
        var sum = lanes.sum()
        while index < count {
            sum += x[index]
            index += 1
        }
        return sum
    }

    /// How many values are strictly larger than `bound`.
    static func countAbove(_ bound: Float, _ x: UnsafePointer<Float>, count: Int) -> Int {
        var lanes = SIMD8<Int32>(repeating: 0)
        let bounds = SIMD8<Float>(repeating: bound)
        let end = count & ~7
        var index = 0
        while index < end {
            lanes.replace(with: lanes &+ 1, where: load(x + index) .> bounds)
            index += 8
        }
        var above = Int(lanes.wrappedSum())
        while index < count {
            if x[index] > bound { above += 1 }
            index += 1
        }
        return above
    }

    /// The dot product, in eight lanes.
    static func dot(_ x: UnsafePointer<Float>, _ y: UnsafePointer<Float>, count: Int) -> Float {
        var lanes = SIMD8<Float>(repeating: 0)
        let end = count & ~7
        var index = 0
        while index < end {
            lanes += load(x + index) * load(y + index)
            index += 8
        }
        var sum = lanes.sum()
        while index < count {
            sum += x[index] * y[index]
            index += 1
        }
        return sum
    }

    /// The largest value.
    static func maximum(_ x: UnsafePointer<Float>, count: Int) -> Float {
        var largest = x[0]
        let end = count & ~7
        var index = 0
        if end > 0 {
            var lanes = load(x)
            index = 8
            while index < end {
                let block = load(x + index)
                lanes.replace(with: block, where: block .> lanes)
                index += 8
            }
            largest = lanes.max()
        }
        while index < count {
            largest = max(largest, x[index])
            index += 1
        }
        return largest
    }

    // MARK: -

    @inline(__always)
    private static func load(_ x: UnsafePointer<Float>) -> SIMD8<Float> {
        UnsafeRawPointer(x).loadUnaligned(as: SIMD8<Float>.self)
    }

    /// Cody and Waite's reduction and a polynomial of degree 6; the integer part goes into the exponent's bits by way of
    /// the constant 1.5 · 2²³, which needs no rounding instruction.
    @inline(__always)
    private static func exponential(_ value: Float) -> Float {
        let x = max(min(value, 88), -87)
        let shifted = x * 1.442_695_04 + 12_582_912
        let whole = shifted - 12_582_912
        let rest = (x - whole * 0.693_359_375) + whole * 2.121_944_40e-04
        var power: Float = 1.987_569_150_0e-04
        power = power * rest + 1.398_199_950_7e-03
        power = power * rest + 8.333_451_907_3e-03
        power = power * rest + 4.166_579_589_4e-02
        power = power * rest + 1.666_666_545_9e-01
        power = power * rest + 5.000_000_120_1e-01
        power = power * rest * rest + rest + 1
        let exponent = (shifted.bitPattern &- 0x4B40_0000 &+ 127) &<< 23
        return power * Float(bitPattern: exponent)
    }
}
