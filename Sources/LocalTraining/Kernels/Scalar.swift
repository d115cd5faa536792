import CKernels
import Foundation

#if OpenBLAS
import CBLAS
#endif

/// Float or Double, with the matrix product and the whole-buffer functions that the layers need.
///
/// Layers are generic over it, so that their gradients can be checked in `Double`. Every loop over elements is one of these requirements,
/// and `Float` implements them with vectorised kernels.
package protocol Scalar: BinaryFloatingPoint, Sendable {
    /// `C = A·B + beta·C`, row-major, `A` and `B` transposed on request; leading dimensions as stored; `beta` is 0 or 1.
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
    /// `C = A·B + beta·C` for a few rows, nothing transposed; `beta` is 0 or 1.
    static func gemmOfFewRows(
        _ rows: Int,
        _ columns: Int,
        _ inner: Int,
        _ a: UnsafePointer<Self>,
        _ b: UnsafePointer<Self>,
        _ beta: Self,
        _ c: UnsafeMutablePointer<Self>
    )
    /// `y[j, i] = x[i, j]`.
    static func transpose(_ x: UnsafePointer<Self>, rows: Int, columns: Int, into y: UnsafeMutablePointer<Self>)
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
    /// How many values are strictly larger than `bound`.
    static func countAbove(_ bound: Self, _ x: UnsafePointer<Self>, count: Int) -> Int
    /// `y[i] += a * x[i]`.
    static func axpy(_ a: Self, _ x: UnsafePointer<Self>, into y: UnsafeMutablePointer<Self>, count: Int)
    /// `x[i] *= a`.
    static func scale(_ x: UnsafeMutablePointer<Self>, by a: Self, count: Int)
    /// The CIFG cell of one sequence at one step: `gates` `[3h]` become f, o, g.
    static func cell(
        _ gates: UnsafeMutablePointer<Self>,
        before: UnsafePointer<Self>,
        after: UnsafeMutablePointer<Self>,
        squashed: UnsafeMutablePointer<Self>,
        hidden: UnsafeMutablePointer<Self>,
        count: Int
    )
    /// The backward step through the cell; `dCell` becomes the gradient of the cell state before the step.
    static func cellGradient(
        _ gates: UnsafePointer<Self>,
        before: UnsafePointer<Self>,
        squashed: UnsafePointer<Self>,
        dHidden: UnsafePointer<Self>,
        dCell: UnsafeMutablePointer<Self>,
        dGates: UnsafeMutablePointer<Self>,
        count: Int
    )
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

extension Scalar {
    /// Sets values to 0, whose bits are 0 in every IEEE format.
    static func clear(_ x: UnsafeMutablePointer<Self>, count: Int) {
        memset(x, 0, count * MemoryLayout<Self>.stride)
    }
}

// Each function is a requirement of the protocol: its loop is then compiled for Float in this module, also for generic callers.
extension Scalar {
    package static func gemmOfFewRows(
        _ rows: Int,
        _ columns: Int,
        _ inner: Int,
        _ a: UnsafePointer<Self>,
        _ b: UnsafePointer<Self>,
        _ beta: Self,
        _ c: UnsafeMutablePointer<Self>
    ) {
        gemm(false, false, rows, columns, inner, a, inner, b, columns, beta, c, columns)
    }

    package static func transpose(
        _ x: UnsafePointer<Self>,
        rows: Int,
        columns: Int,
        into y: UnsafeMutablePointer<Self>
    ) {
        for column in 0..<columns {
            for row in 0..<rows { y[column * rows + row] = x[row * columns + column] }
        }
    }

    package static func countAbove(_ bound: Self, _ x: UnsafePointer<Self>, count: Int) -> Int {
        var above: Int32 = 0
        for index in 0..<count { above &+= x[index] > bound ? 1 : 0 }
        return Int(above)
    }

    package static func axpy(_ a: Self, _ x: UnsafePointer<Self>, into y: UnsafeMutablePointer<Self>, count: Int) {
        for index in 0..<count { y[index] += a * x[index] }
    }

    package static func scale(_ x: UnsafeMutablePointer<Self>, by a: Self, count: Int) {
        for index in 0..<count { x[index] *= a }
    }

    package static func cell(
        _ gates: UnsafeMutablePointer<Self>,
        before: UnsafePointer<Self>,
        after: UnsafeMutablePointer<Self>,
        squashed: UnsafeMutablePointer<Self>,
        hidden: UnsafeMutablePointer<Self>,
        count: Int
    ) {
        let (o, g) = (gates + count, gates + 2 * count)
        sigmoid(gates, count: 2 * count)
        hyperbolicTangent(g, into: g, count: count)
        for unit in 0..<count { after[unit] = gates[unit] * before[unit] + (1 - gates[unit]) * g[unit] }
        hyperbolicTangent(after, into: squashed, count: count)
        for unit in 0..<count { hidden[unit] = o[unit] * squashed[unit] }
    }

    package static func cellGradient(
        _ gates: UnsafePointer<Self>,
        before: UnsafePointer<Self>,
        squashed: UnsafePointer<Self>,
        dHidden: UnsafePointer<Self>,
        dCell: UnsafeMutablePointer<Self>,
        dGates: UnsafeMutablePointer<Self>,
        count: Int
    ) {
        let (o, g) = (gates + count, gates + 2 * count)
        let (dOut, dg) = (dGates + count, dGates + 2 * count)
        for unit in 0..<count { dCell[unit] += dHidden[unit] * o[unit] * (1 - squashed[unit] * squashed[unit]) }
        for unit in 0..<count { dOut[unit] = dHidden[unit] * squashed[unit] * o[unit] * (1 - o[unit]) }
        for unit in 0..<count { dg[unit] = dCell[unit] * (1 - gates[unit]) * (1 - g[unit] * g[unit]) }
        for unit in 0..<count {
            dGates[unit] = dCell[unit] * (before[unit] - g[unit]) * gates[unit] * (1 - gates[unit])
        }
        for unit in 0..<count { dCell[unit] *= gates[unit] }
    }

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
        #if OpenBLAS
        _ = BLASCore.choice
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
        #else
        martlet_product_f32(
            transposeA ? 1 : 0,
            transposeB ? 1 : 0,
            rows,
            columns,
            inner,
            a,
            strideA,
            b,
            strideB,
            beta == 0 ? 0 : 1,
            c,
            strideC
        )
        #endif
    }
    package static func exponential(_ x: Float) -> Float { expf(x) }
    package static func logarithm(_ x: Float) -> Float { logf(x) }
    package static func hyperbolicTangent(_ x: Float) -> Float { tanhf(x) }
    /// With few rows a library spends its time on packing the weights.
    ///
    /// Packing pays with more rows, or for weights larger than the second-level cache.
    package static func gemmOfFewRows(
        _ rows: Int,
        _ columns: Int,
        _ inner: Int,
        _ a: UnsafePointer<Float>,
        _ b: UnsafePointer<Float>,
        _ beta: Float,
        _ c: UnsafeMutablePointer<Float>
    ) {
        guard rows <= 8, columns * inner <= 1 << 16 else {
            gemm(false, false, rows, columns, inner, a, inner, b, columns, beta, c, columns)
            return
        }
        martlet_multiply_few_rows(rows, columns, inner, a, inner, b, columns, beta == 0 ? 0 : 1, c, columns)
    }
    package static func countAbove(_ bound: Float, _ x: UnsafePointer<Float>, count: Int) -> Int {
        martlet_count_above(bound, x, count)
    }
    package static func sigmoid(_ x: UnsafeMutablePointer<Float>, count: Int) { martlet_sigmoid(x, count) }
    package static func hyperbolicTangent(
        _ x: UnsafePointer<Float>,
        into y: UnsafeMutablePointer<Float>,
        count: Int
    ) {
        martlet_tanh(x, y, count)
    }
    package static func exponentialSum(_ x: UnsafeMutablePointer<Float>, minus shift: Float, count: Int) -> Float {
        martlet_exponential_sum(x, shift, count)
    }
    package static func maximum(_ x: UnsafePointer<Float>, count: Int) -> Float { martlet_maximum(x, count) }
    package static func dot(_ x: UnsafePointer<Float>, _ y: UnsafePointer<Float>, count: Int) -> Float {
        martlet_dot(x, y, count)
    }
    package static func axpy(_ a: Float, _ x: UnsafePointer<Float>, into y: UnsafeMutablePointer<Float>, count: Int) {
        martlet_axpy(a, x, y, count)
    }
    package static func cell(
        _ gates: UnsafeMutablePointer<Float>,
        before: UnsafePointer<Float>,
        after: UnsafeMutablePointer<Float>,
        squashed: UnsafeMutablePointer<Float>,
        hidden: UnsafeMutablePointer<Float>,
        count: Int
    ) {
        martlet_cifg_cell(gates, gates + count, gates + 2 * count, before, after, squashed, hidden, count)
    }
    package static func cellGradient(
        _ gates: UnsafePointer<Float>,
        before: UnsafePointer<Float>,
        squashed: UnsafePointer<Float>,
        dHidden: UnsafePointer<Float>,
        dCell: UnsafeMutablePointer<Float>,
        dGates: UnsafeMutablePointer<Float>,
        count: Int
    ) {
        martlet_cifg_cell_gradient(
            gates,
            gates + count,
            gates + 2 * count,
            before,
            squashed,
            dHidden,
            dCell,
            dGates,
            dGates + count,
            dGates + 2 * count,
            count
        )
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
        #if OpenBLAS
        _ = BLASCore.choice
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
        #else
        martlet_product_f64(
            transposeA ? 1 : 0,
            transposeB ? 1 : 0,
            rows,
            columns,
            inner,
            a,
            strideA,
            b,
            strideB,
            beta == 0 ? 0 : 1,
            c,
            strideC
        )
        #endif
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
