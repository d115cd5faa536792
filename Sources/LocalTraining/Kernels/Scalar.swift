import CBLAS
import Foundation

/// Float or Double, with the matrix product and the whole-buffer functions that the layers need.
///
/// Layers are generic over it so that their gradients can be checked in Double; every loop over elements is behind one of
/// these requirements, which Float answers with vectorised kernels.
package protocol Scalar: BinaryFloatingPoint, Sendable {
    /// `C = A·B + beta·C`, row-major, `A` and `B` transposed on request; leading dimensions as stored.
    static func gemm(
        _ transposeA: Bool,
        _ transposeB: Bool,
        _ rows: Int,
        _ columns: Int,
        _ inner: Int,
        _ a: UnsafePointer<Self>,
        _ strideA: Int,
        _ b: UnsafePointer<Self>,
        _ strideB: Int,
        _ beta: Self,
        _ c: UnsafeMutablePointer<Self>,
        _ strideC: Int
    )
    static func exponential(_ x: Self) -> Self
    static func logarithm(_ x: Self) -> Self
    static func hyperbolicTangent(_ x: Self) -> Self
    /// `x[i] = 1 / (1 + exp(-x[i]))`.
    static func sigmoid(_ x: UnsafeMutablePointer<Self>, count: Int)
    /// `y[i] = tanh(x[i])`; `y` may be `x`.
    static func hyperbolicTangent(_ x: UnsafePointer<Self>, into y: UnsafeMutablePointer<Self>, count: Int)
    /// `x[i] = exp(x[i] - shift)`; returns the sum.
    static func exponentialSum(_ x: UnsafeMutablePointer<Self>, minus shift: Self, count: Int) -> Self
    /// The largest of `count` values, at least one.
    static func maximum(_ x: UnsafePointer<Self>, count: Int) -> Self
    /// The dot product.
    static func dot(_ x: UnsafePointer<Self>, _ y: UnsafePointer<Self>, count: Int) -> Self
}

extension Scalar {
    /// How many values are strictly larger than `bound`.
    static func countAbove(_ bound: Self, _ x: UnsafePointer<Self>, count: Int) -> Int {
        var above: Int32 = 0
        for index in 0..<count { above &+= x[index] > bound ? 1 : 0 }
        return Int(above)
    }

    /// `y[i] += a * x[i]`.
    static func axpy(_ a: Self, _ x: UnsafePointer<Self>, into y: UnsafeMutablePointer<Self>, count: Int) {
        for index in 0..<count { y[index] += a * x[index] }
    }

    /// `x[i] *= a`.
    static func scale(_ x: UnsafeMutablePointer<Self>, by a: Self, count: Int) {
        for index in 0..<count { x[index] *= a }
    }
}

/// OpenBLAS runs on the caller's thread only: clients are what runs in parallel.
private let singleThreadedBLAS: Void = openblas_set_num_threads(1)

extension Float: Scalar {
    package static func gemm(
        _ transposeA: Bool,
        _ transposeB: Bool,
        _ rows: Int,
        _ columns: Int,
        _ inner: Int,
        _ a: UnsafePointer<Float>,
        _ strideA: Int,
        _ b: UnsafePointer<Float>,
        _ strideB: Int,
        _ beta: Float,
        _ c: UnsafeMutablePointer<Float>,
        _ strideC: Int
    ) {
        _ = singleThreadedBLAS
        cblas_sgemm(
            101,
            transposeA ? 112 : 111,
            transposeB ? 112 : 111,
            Int32(rows),
            Int32(columns),
            Int32(inner),
            1,
            a,
            Int32(strideA),
            b,
            Int32(strideB),
            beta,
            c,
            Int32(strideC)
        )
    }
    package static func exponential(_ x: Float) -> Float { expf(x) }
    package static func logarithm(_ x: Float) -> Float { logf(x) }
    package static func hyperbolicTangent(_ x: Float) -> Float { tanhf(x) }
    package static func sigmoid(_ x: UnsafeMutablePointer<Float>, count: Int) { FloatKernels.sigmoid(x, count: count) }
    package static func hyperbolicTangent(
        _ x: UnsafePointer<Float>,
        into y: UnsafeMutablePointer<Float>,
        count: Int
    ) {
        FloatKernels.hyperbolicTangent(x, into: y, count: count)
    }
    package static func exponentialSum(_ x: UnsafeMutablePointer<Float>, minus shift: Float, count: Int) -> Float {
        FloatKernels.exponential(x, minus: shift, count: count)
        return FloatKernels.sum(x, count: count)
    }
    package static func maximum(_ x: UnsafePointer<Float>, count: Int) -> Float {
        FloatKernels.maximum(x, count: count)
    }
    package static func dot(_ x: UnsafePointer<Float>, _ y: UnsafePointer<Float>, count: Int) -> Float {
        FloatKernels.dot(x, y, count: count)
    }
}

extension Double: Scalar {
    package static func gemm(
        _ transposeA: Bool,
        _ transposeB: Bool,
        _ rows: Int,
        _ columns: Int,
        _ inner: Int,
        _ a: UnsafePointer<Double>,
        _ strideA: Int,
        _ b: UnsafePointer<Double>,
        _ strideB: Int,
        _ beta: Double,
        _ c: UnsafeMutablePointer<Double>,
        _ strideC: Int
    ) {
        _ = singleThreadedBLAS
        cblas_dgemm(
            101,
            transposeA ? 112 : 111,
            transposeB ? 112 : 111,
            Int32(rows),
            Int32(columns),
            Int32(inner),
            1,
            a,
            Int32(strideA),
            b,
            Int32(strideB),
            beta,
            c,
            Int32(strideC)
        )
    }
    package static func exponential(_ x: Double) -> Double { exp(x) }
    package static func logarithm(_ x: Double) -> Double { log(x) }
    package static func hyperbolicTangent(_ x: Double) -> Double { tanh(x) }
    package static func sigmoid(_ x: UnsafeMutablePointer<Double>, count: Int) {
        for index in 0..<count {
            let power = exp(-abs(x[index]))
            x[index] = (x[index] >= 0 ? 1 : power) / (1 + power)
        }
    }
    package static func hyperbolicTangent(
        _ x: UnsafePointer<Double>,
        into y: UnsafeMutablePointer<Double>,
        count: Int
    ) {
        for index in 0..<count { y[index] = tanh(x[index]) }
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
