import CKernels
import Foundation

/// What the decoder adds: its norm, its rotation, its gated unit, and the backward step through attention.
package protocol DecoderScalar: LanguageScalar {
    /// The dot product.
    static func dot(_ x: UnsafePointer<Self>, _ y: UnsafePointer<Self>, count: Int) -> Self
    /// `y[i] = gate[i] * sigmoid[i] * up[i]`.
    static func gatedUnit(
        _ gate: UnsafePointer<Self>,
        _ sigmoid: UnsafePointer<Self>,
        _ up: UnsafePointer<Self>,
        into y: UnsafeMutablePointer<Self>,
        count: Int
    )
    /// The backward step through the gated unit, from `dy` to the gradients of the gate and the up projection.
    static func gatedUnitGradient(
        _ gate: UnsafePointer<Self>,
        _ sigmoid: UnsafePointer<Self>,
        _ up: UnsafePointer<Self>,
        dy: UnsafePointer<Self>,
        dGate: UnsafeMutablePointer<Self>,
        dUp: UnsafeMutablePointer<Self>,
        count: Int
    )
    /// `unit[i] = x[i] * scale; normed[i] = unit[i] * weight[i]`.
    static func norm(
        _ x: UnsafePointer<Self>,
        scale: Self,
        weight: UnsafePointer<Self>,
        unit: UnsafeMutablePointer<Self>,
        normed: UnsafeMutablePointer<Self>,
        count: Int
    )
    /// `y[i] += x[i] * z[i]`.
    static func addProduct(
        _ x: UnsafePointer<Self>,
        _ z: UnsafePointer<Self>,
        into y: UnsafeMutablePointer<Self>,
        count: Int
    )
    /// `x[i] *= z[i]`.
    static func multiply(_ x: UnsafeMutablePointer<Self>, by z: UnsafePointer<Self>, count: Int)
    /// Turns pairs: `low' = low cos - high sin`, `high' = high cos + low sin`, the sine times `sign`.
    static func rotate(
        _ low: UnsafeMutablePointer<Self>,
        _ high: UnsafeMutablePointer<Self>,
        cosines: UnsafePointer<Self>,
        sines: UnsafePointer<Self>,
        sign: Self,
        count: Int
    )
    /// `row[i] = weight[i] * (row[i] - mean) * scale`: the backward step through a softmax.
    static func softmaxGradient(
        _ row: UnsafeMutablePointer<Self>,
        weight: UnsafePointer<Self>,
        mean: Self,
        scale: Self,
        count: Int
    )
}

// Each function is a requirement of the protocol: its loop is then compiled for Float in this module, also for generic callers.
extension DecoderScalar {
    package static func gatedUnit(
        _ gate: UnsafePointer<Self>,
        _ sigmoid: UnsafePointer<Self>,
        _ up: UnsafePointer<Self>,
        into y: UnsafeMutablePointer<Self>,
        count: Int
    ) {
        for index in 0..<count { y[index] = gate[index] * sigmoid[index] * up[index] }
    }

    package static func gatedUnitGradient(
        _ gate: UnsafePointer<Self>,
        _ sigmoid: UnsafePointer<Self>,
        _ up: UnsafePointer<Self>,
        dy: UnsafePointer<Self>,
        dGate: UnsafeMutablePointer<Self>,
        dUp: UnsafeMutablePointer<Self>,
        count: Int
    ) {
        for index in 0..<count { dUp[index] = dy[index] * gate[index] * sigmoid[index] }
        for index in 0..<count {
            dGate[index] = dy[index] * up[index] * sigmoid[index] * (1 + gate[index] * (1 - sigmoid[index]))
        }
    }

    package static func norm(
        _ x: UnsafePointer<Self>,
        scale: Self,
        weight: UnsafePointer<Self>,
        unit: UnsafeMutablePointer<Self>,
        normed: UnsafeMutablePointer<Self>,
        count: Int
    ) {
        for index in 0..<count { unit[index] = x[index] * scale }
        for index in 0..<count { normed[index] = unit[index] * weight[index] }
    }

    package static func addProduct(
        _ x: UnsafePointer<Self>,
        _ z: UnsafePointer<Self>,
        into y: UnsafeMutablePointer<Self>,
        count: Int
    ) {
        for index in 0..<count { y[index] += x[index] * z[index] }
    }

    package static func multiply(_ x: UnsafeMutablePointer<Self>, by z: UnsafePointer<Self>, count: Int) {
        for index in 0..<count { x[index] *= z[index] }
    }

    package static func rotate(
        _ low: UnsafeMutablePointer<Self>,
        _ high: UnsafeMutablePointer<Self>,
        cosines: UnsafePointer<Self>,
        sines: UnsafePointer<Self>,
        sign: Self,
        count: Int
    ) {
        for index in 0..<count {
            let (cosine, sine) = (cosines[index], sign * sines[index])
            let (first, second) = (low[index], high[index])
            low[index] = first * cosine - second * sine
            high[index] = second * cosine + first * sine
        }
    }

    package static func softmaxGradient(
        _ row: UnsafeMutablePointer<Self>,
        weight: UnsafePointer<Self>,
        mean: Self,
        scale: Self,
        count: Int
    ) {
        for index in 0..<count { row[index] = weight[index] * (row[index] - mean) * scale }
    }
}

extension Float: DecoderScalar {
    package static func dot(_ x: UnsafePointer<Float>, _ y: UnsafePointer<Float>, count: Int) -> Float {
        martlet_dot(x, y, count)
    }
}

extension Double: DecoderScalar {
    package static func dot(_ x: UnsafePointer<Double>, _ y: UnsafePointer<Double>, count: Int) -> Double {
        var sum = 0.0
        for index in 0..<count { sum += x[index] * y[index] }
        return sum
    }
}

extension Double {
    static func power(_ base: Double, _ exponent: Double) -> Double { pow(base, exponent) }
    static func cosine(_ angle: Double) -> Double { cos(angle) }
    static func sine(_ angle: Double) -> Double { sin(angle) }
}
