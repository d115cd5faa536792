/// A linear layer `[out, in]`, with an optional bias and an optional low-rank adapter.
final class Projection<Value: DecoderScalar> {
    /// `W' = W + scale · B A`, by offsets.
    struct Adapter {
        var rank: Int
        var scale: Value
        var a: Int
        var b: Int
    }

    let input: Int, output: Int, weight: Int, bias: Int?
    let adapter: Adapter?
    /// `scale · x Aᵀ`, `[n, r]`.
    private let reduced = Workspace<Value>()
    private let dReduced = Workspace<Value>()

    init(input: Int, output: Int, weight: Int, bias: Int?, adapter: Adapter?) {
        self.input = input
        self.output = output
        self.weight = weight
        self.bias = bias
        self.adapter = adapter
    }

    /// W, `[out, in]`.
    private func weights(_ tensors: DecoderTensors<Value>) -> MatrixView<Value> {
        MatrixView(tensors.weights + weight, rows: output, columns: input)
    }

    /// `y = x Wᵀ`, `[n, out]`; added to `y` if it `adds`.
    func forward(
        _ tensors: DecoderTensors<Value>,
        _ x: UnsafePointer<Value>,
        count: Int,
        adds: Bool = false,
        into y: UnsafeMutablePointer<Value>
    ) {
        let x = MatrixView(x, rows: count, columns: input)
        let target = MutableMatrixView(y, rows: count, columns: output)
        Value.multiply(x, by: weights(tensors).transposed, into: target, adds: adds)
        if let bias {
            for row in 0..<count { Value.axpy(1, tensors.weights + bias, into: y + row * output, count: output) }
        }
        guard let adapter, let a = tensors.a, let b = tensors.b else { return }
        let rank = adapter.rank
        let reduced = MutableMatrixView(reduced.reserve(count * rank), rows: count, columns: rank)
        Value.multiply(x, by: MatrixView(a + adapter.a, rows: rank, columns: input).transposed, into: reduced)
        Value.scale(reduced.base, by: adapter.scale, count: count * rank)
        let expanding = MatrixView(b + adapter.b, rows: output, columns: rank).transposed
        Value.multiply(reduced.values, by: expanding, into: target, adds: true)
    }

    /// The backward pass: adds to the tensors' gradients, and writes `dx`, or adds to it if it `adds`.
    func backward(
        _ tensors: DecoderTensors<Value>,
        x: UnsafePointer<Value>,
        dy: UnsafePointer<Value>,
        count: Int,
        adds: Bool,
        dx: UnsafeMutablePointer<Value>
    ) {
        let x = MatrixView(x, rows: count, columns: input)
        let change = MatrixView(dy, rows: count, columns: output)
        let dx = MutableMatrixView(dx, rows: count, columns: input)
        Value.multiply(change, by: weights(tensors), into: dx, adds: adds)
        if let dWeights = tensors.dWeights {
            let target = MutableMatrixView(dWeights + weight, rows: output, columns: input)
            Value.multiply(change.transposed, by: x, into: target, adds: true)
            if let bias {
                for row in 0..<count { Value.axpy(1, dy + row * output, into: dWeights + bias, count: output) }
            }
        }
        guard let adapter, let a = tensors.a, let b = tensors.b, let dB = tensors.dB else { return }
        let rank = adapter.rank
        let reduced = MatrixView(reduced.base, rows: count, columns: rank)
        let dExpanding = MutableMatrixView(dB + adapter.b, rows: output, columns: rank)
        Value.multiply(change.transposed, by: reduced, into: dExpanding, adds: true)
        let dReduced = MutableMatrixView(dReduced.reserve(count * rank), rows: count, columns: rank)
        Value.multiply(change, by: MatrixView(b + adapter.b, rows: output, columns: rank), into: dReduced)
        Value.scale(dReduced.base, by: adapter.scale, count: count * rank)
        if let dA = tensors.dA {
            let target = MutableMatrixView(dA + adapter.a, rows: rank, columns: input)
            Value.multiply(dReduced.values.transposed, by: x, into: target, adds: true)
        }
        Value.multiply(dReduced.values, by: MatrixView(a + adapter.a, rows: rank, columns: input), into: dx, adds: true)
    }
}

/// The output of RMSNorm, and the values that its gradient needs.
final class NormBuffers<Value: DecoderScalar> {
    /// `x / rms(x)`, `[n, d]`.
    let unit = Workspace<Value>()
    /// `unit` times the weight, `[n, d]`.
    let normed = Workspace<Value>()
    /// `1 / rms(x)`, `[n]`.
    let inverse = Workspace<Value>()

    func forward(_ x: UnsafePointer<Value>, weight: UnsafePointer<Value>, count: Int, width: Int, epsilon: Value) {
        let (unit, normed) = (unit.reserve(count * width), normed.reserve(count * width))
        let inverse = inverse.reserve(count)
        for row in 0..<count {
            let source = x + row * width
            let scale = 1 / (Value.dot(source, source, count: width) / Value(width) + epsilon).squareRoot()
            inverse[row] = scale
            let (unitRow, normedRow) = (unit + row * width, normed + row * width)
            Value.norm(source, scale: scale, weight: weight, unit: unitRow, normed: normedRow, count: width)
        }
    }

    /// The backward pass: adds to `dx`, and to `dWeight` if it is wanted; changes `dy`.
    func backward(
        dy: UnsafeMutablePointer<Value>,
        weight: UnsafePointer<Value>,
        dWeight: UnsafeMutablePointer<Value>?,
        dx: UnsafeMutablePointer<Value>,
        count: Int,
        width: Int
    ) {
        for row in 0..<count {
            let (dyRow, dxRow, unitRow) = (dy + row * width, dx + row * width, unit.base + row * width)
            if let dWeight { Value.addProduct(dyRow, unitRow, into: dWeight, count: width) }
            Value.multiply(dyRow, by: weight, count: width)
            let mean = Value.dot(dyRow, unitRow, count: width) / Value(width)
            let scale = inverse.base[row]
            Value.axpy(scale, dyRow, into: dxRow, count: width)
            Value.axpy(-scale * mean, unitRow, into: dxRow, count: width)
        }
    }
}
