import CKernels
import Foundation

#if OpenBLAS
import CBLAS
#endif

/// Float or Double, with what the layers of every network need.
///
/// Layers are generic over it, so that their gradients can be checked in `Double`. Every loop over elements is a requirement of this
/// protocol or of one that extends it for a family of networks, and `Float` implements them with vectorised kernels.
package protocol Scalar: BinaryFloatingPoint, Sendable {
    /// `C = A·B`, or `C += A·B` if it `adds`.
    static func multiply(
        _ a: MatrixView<Self>,
        by b: MatrixView<Self>,
        into c: MutableMatrixView<Self>,
        adds: Bool
    )
    static func exponential(_ x: Self) -> Self
    static func logarithm(_ x: Self) -> Self
    /// `y[i] += a * x[i]`.
    static func axpy(_ a: Self, _ x: UnsafePointer<Self>, into y: UnsafeMutablePointer<Self>, count: Int)
}

extension Scalar {
    /// `C = A·B`.
    static func multiply(_ a: MatrixView<Self>, by b: MatrixView<Self>, into c: MutableMatrixView<Self>) {
        multiply(a, by: b, into: c, adds: false)
    }

    /// Stops a product of matrices that do not fit.
    static func checkShapes(_ a: MatrixView<Self>, _ b: MatrixView<Self>, _ c: MutableMatrixView<Self>) {
        precondition(a.columns == b.rows && c.rows == a.rows && c.columns == b.columns, "matrices do not fit")
    }

    /// Sets values to 0, whose bits are 0 in every IEEE format.
    static func clear(_ x: UnsafeMutablePointer<Self>, count: Int) {
        memset(x, 0, count * MemoryLayout<Self>.stride)
    }

    // A requirement of the protocol: its loop is then compiled for each type in this module, also for generic callers.
    package static func axpy(_ a: Self, _ x: UnsafePointer<Self>, into y: UnsafeMutablePointer<Self>, count: Int) {
        for index in 0..<count { y[index] += a * x[index] }
    }
}

extension Float: Scalar {
    package static func multiply(
        _ a: MatrixView<Float>,
        by b: MatrixView<Float>,
        into c: MutableMatrixView<Float>,
        adds: Bool
    ) {
        checkShapes(a, b, c)
        #if OpenBLAS
        _ = BLASCore.choice
        cblas_sgemm(
            101,
            a.isTransposed ? 112 : 111,
            b.isTransposed ? 112 : 111,
            Int32(c.rows),
            Int32(c.columns),
            Int32(a.columns),
            1,
            a.base,
            Int32(a.stride),
            b.base,
            Int32(b.stride),
            adds ? 1 : 0,
            c.base,
            Int32(c.stride)
        )
        #else
        martlet_product_f32(
            a.isTransposed ? 1 : 0,
            b.isTransposed ? 1 : 0,
            c.rows,
            c.columns,
            a.columns,
            a.base,
            a.stride,
            b.base,
            b.stride,
            adds ? 1 : 0,
            c.base,
            c.stride
        )
        #endif
    }
    package static func exponential(_ x: Float) -> Float { expf(x) }
    package static func logarithm(_ x: Float) -> Float { logf(x) }
    package static func axpy(_ a: Float, _ x: UnsafePointer<Float>, into y: UnsafeMutablePointer<Float>, count: Int) {
        martlet_axpy(a, x, y, count)
    }
}

extension Double: Scalar {
    package static func multiply(
        _ a: MatrixView<Double>,
        by b: MatrixView<Double>,
        into c: MutableMatrixView<Double>,
        adds: Bool
    ) {
        checkShapes(a, b, c)
        #if OpenBLAS
        _ = BLASCore.choice
        cblas_dgemm(
            101,
            a.isTransposed ? 112 : 111,
            b.isTransposed ? 112 : 111,
            Int32(c.rows),
            Int32(c.columns),
            Int32(a.columns),
            1,
            a.base,
            Int32(a.stride),
            b.base,
            Int32(b.stride),
            adds ? 1 : 0,
            c.base,
            Int32(c.stride)
        )
        #else
        martlet_product_f64(
            a.isTransposed ? 1 : 0,
            b.isTransposed ? 1 : 0,
            c.rows,
            c.columns,
            a.columns,
            a.base,
            a.stride,
            b.base,
            b.stride,
            adds ? 1 : 0,
            c.base,
            c.stride
        )
        #endif
    }
    package static func exponential(_ x: Double) -> Double { exp(x) }
    package static func logarithm(_ x: Double) -> Double { log(x) }
}
