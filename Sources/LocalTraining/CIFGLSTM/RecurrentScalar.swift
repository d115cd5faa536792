import CKernels
import Foundation

/// What the recurrent network adds: products of a step's few rows, and the CIFG cell.
package protocol RecurrentScalar: LanguageScalar {
    /// `C = A·B`, or `C += A·B` if it `adds`, for a few rows, nothing transposed.
    static func multiplyFewRows(
        _ a: MatrixView<Self>,
        by b: MatrixView<Self>,
        into c: MutableMatrixView<Self>,
        adds: Bool
    )
    /// `y[j, i] = x[i, j]`.
    static func transpose(_ x: UnsafePointer<Self>, rows: Int, columns: Int, into y: UnsafeMutablePointer<Self>)
    /// `y[i] = tanh(x[i])`; `y` may be `x`.
    static func hyperbolicTangent(_ x: UnsafePointer<Self>, into y: UnsafeMutablePointer<Self>, count: Int)
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
}

// Each function is a requirement of the protocol: its loop is then compiled for Float in this module, also for generic callers.
extension RecurrentScalar {
    package static func multiplyFewRows(
        _ a: MatrixView<Self>,
        by b: MatrixView<Self>,
        into c: MutableMatrixView<Self>,
        adds: Bool
    ) {
        multiply(a, by: b, into: c, adds: adds)
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
}

extension Float: RecurrentScalar {
    /// With few rows a library spends its time on packing the weights.
    ///
    /// Packing pays with more rows, or for weights larger than the second-level cache.
    package static func multiplyFewRows(
        _ a: MatrixView<Float>,
        by b: MatrixView<Float>,
        into c: MutableMatrixView<Float>,
        adds: Bool
    ) {
        guard c.rows <= 8, c.columns * a.columns <= 1 << 16 else { return multiply(a, by: b, into: c, adds: adds) }
        checkShapes(a, b, c)
        precondition(!a.isTransposed && !b.isTransposed, "the kernel reads rows")
        martlet_multiply_few_rows(
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
    }
    package static func hyperbolicTangent(
        _ x: UnsafePointer<Float>,
        into y: UnsafeMutablePointer<Float>,
        count: Int
    ) {
        martlet_tanh(x, y, count)
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

extension Double: RecurrentScalar {
    package static func hyperbolicTangent(
        _ x: UnsafePointer<Double>,
        into y: UnsafeMutablePointer<Double>,
        count: Int
    ) {
        for index in 0..<count { y[index] = tanh(x[index]) }
    }
}
