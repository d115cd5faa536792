import CKernels
import Foundation

/// What language models add to ``Scalar``: activations, and the softmax over a vocabulary.
package protocol LanguageScalar: Scalar {
    /// `x[i] = 1 / (1 + exp(-x[i]))`.
    static func sigmoid(_ x: UnsafeMutablePointer<Self>, count: Int)
    /// `x[i] = exp(x[i] - shift)`; returns the sum.
    static func exponentialSum(_ x: UnsafeMutablePointer<Self>, minus shift: Self, count: Int) -> Self
    /// The largest of `count` values, at least one.
    static func maximum(_ x: UnsafePointer<Self>, count: Int) -> Self
    /// How many values are strictly larger than `bound`.
    static func countAbove(_ bound: Self, _ x: UnsafePointer<Self>, count: Int) -> Int
    /// `x[i] *= a`.
    static func scale(_ x: UnsafeMutablePointer<Self>, by a: Self, count: Int)
}

// Each function is a requirement of the protocol: its loop is then compiled for Float in this module, also for generic callers.
extension LanguageScalar {
    package static func countAbove(_ bound: Self, _ x: UnsafePointer<Self>, count: Int) -> Int {
        var above: Int32 = 0
        for index in 0..<count { above &+= x[index] > bound ? 1 : 0 }
        return Int(above)
    }

    package static func scale(_ x: UnsafeMutablePointer<Self>, by a: Self, count: Int) {
        for index in 0..<count { x[index] *= a }
    }
}

extension Float: LanguageScalar {
    package static func sigmoid(_ x: UnsafeMutablePointer<Float>, count: Int) { martlet_sigmoid(x, count) }
    package static func exponentialSum(_ x: UnsafeMutablePointer<Float>, minus shift: Float, count: Int) -> Float {
        martlet_exponential_sum(x, shift, count)
    }
    package static func maximum(_ x: UnsafePointer<Float>, count: Int) -> Float { martlet_maximum(x, count) }
    package static func countAbove(_ bound: Float, _ x: UnsafePointer<Float>, count: Int) -> Int {
        martlet_count_above(bound, x, count)
    }
}

extension Double: LanguageScalar {
    package static func sigmoid(_ x: UnsafeMutablePointer<Double>, count: Int) {
        for index in 0..<count {
            let power = exp(-abs(x[index]))
            x[index] = (x[index] >= 0 ? 1 : power) / (1 + power)
        }
    }
    package static func exponentialSum(_ x: UnsafeMutablePointer<Double>, minus shift: Double, count: Int) -> Double {
        var sum = 0.0
        for index in 0..<count {
            x[index] = exp(x[index] - shift)
            sum += x[index]
        }
        return sum
    }
    package static func maximum(_ x: UnsafePointer<Double>, count: Int) -> Double {
        var largest = x[0]
        for index in 1..<max(1, count) { largest = max(largest, x[index]) }
        return largest
    }
}
