/// A linear layer `[out, in]`, with an optional bias and an optional low-rank adapter.
final class Projection<Value: Scalar> {
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

    /// `y = x Wᵀ`, `[n, out]`; added to `y` if `beta` is 1.
    func forward(
        _ tensors: DecoderTensors<Value>,
        _ x: UnsafePointer<Value>,
        count: Int,
        beta: Value = 0,
        into y: UnsafeMutablePointer<Value>
    ) {
        Value.gemm(false, true, count, output, input, x, input, tensors.weights + weight, input, beta, y, output)
        if let bias {
            for row in 0..<count { Value.axpy(1, tensors.weights + bias, into: y + row * output, count: output) }
        }
        guard let adapter, let a = tensors.a, let b = tensors.b else { return }
        let reduced = reduced.reserve(count * adapter.rank)
        Value.gemm(false, true, count, adapter.rank, input, x, input, a + adapter.a, input, 0, reduced, adapter.rank)
        Value.scale(reduced, by: adapter.scale, count: count * adapter.rank)
        Value.gemm(
            false,
            true,
            count,
            output,
            adapter.rank,
            reduced,
            adapter.rank,
            b + adapter.b,
            adapter.rank,
            1,
            y,
            output
        )
    }

    /// The backward pass: adds to the tensors' gradients, and writes `dx`, or adds to it if `beta` is 1.
    func backward(
        _ tensors: DecoderTensors<Value>,
        x: UnsafePointer<Value>,
        dy: UnsafePointer<Value>,
        count: Int,
        beta: Value,
        dx: UnsafeMutablePointer<Value>
    ) {
        Value.gemm(false, false, count, input, output, dy, output, tensors.weights + weight, input, beta, dx, input)
        if let dWeights = tensors.dWeights {
            Value.gemm(true, false, output, input, count, dy, output, x, input, 1, dWeights + weight, input)
            if let bias {
                for row in 0..<count { Value.axpy(1, dy + row * output, into: dWeights + bias, count: output) }
            }
        }
        guard let adapter, let a = tensors.a, let b = tensors.b, let dB = tensors.dB else { return }
        let rank = adapter.rank
        Value.gemm(true, false, output, rank, count, dy, output, reduced.base, rank, 1, dB + adapter.b, rank)
        let dReduced = dReduced.reserve(count * rank)
        Value.gemm(false, false, count, rank, output, dy, output, b + adapter.b, rank, 0, dReduced, rank)
        Value.scale(dReduced, by: adapter.scale, count: count * rank)
        if let dA = tensors.dA {
            Value.gemm(true, false, rank, input, count, dReduced, rank, x, input, 1, dA + adapter.a, input)
        }
        Value.gemm(false, false, count, input, rank, dReduced, rank, a + adapter.a, input, 1, dx, input)
    }
}

/// The output of RMSNorm, and the values that its gradient needs.
final class NormBuffers<Value: Scalar> {
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
