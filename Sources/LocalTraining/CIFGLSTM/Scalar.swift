import CBLAS
import Foundation

/// Float or Double, with the matrix product that the layers need.
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
}
