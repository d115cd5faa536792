extension Decoder {
    /// The forward pass: fills the buffers of every layer, and `final.normed` with the normed last hidden states.
    func runForward(_ batch: TokenBatch, _ tensors: DecoderTensors<Value>) {
        let width = configuration.hiddenSize
        let (steps, rows, n) = (batch.steps, batch.rows, batch.inputs.count)
        let epsilon = Value(configuration.normEpsilon)
        prepareRotation(steps)
        let x = residual.reserve(n * width)
        for position in 0..<n {
            (x + position * width).update(
                from: tensors.weights + embedding + batch.inputs[position] * width,
                count: width
            )
        }
        for layer in layers {
            layer.first.forward(
                x,
                weight: tensors.weights + layer.attentionNorm,
                count: n,
                width: width,
                epsilon: epsilon
            )
            let input = layer.first.normed.base
            let (q, k) = (layer.q.reserve(n * layer.queries.output), layer.k.reserve(n * layer.keys.output))
            layer.queries.forward(tensors, input, count: n, into: q)
            layer.keys.forward(tensors, input, count: n, into: k)
            layer.values.forward(tensors, input, count: n, into: layer.v.reserve(n * layer.values.output))
            rotate(q, heads: configuration.headCount, steps: steps, rows: rows, backwards: false)
            rotate(k, heads: configuration.keyValueHeadCount, steps: steps, rows: rows, backwards: false)
            attend(layer, steps: steps, rows: rows)
            layer.output.forward(tensors, layer.mixed.base, count: n, adds: true, into: x)
            layer.second.forward(
                x,
                weight: tensors.weights + layer.feedForwardNorm,
                count: n,
                width: width,
                epsilon: epsilon
            )
            let hidden = n * configuration.intermediateSize
            let (gates, ups) = (layer.gates.reserve(hidden), layer.ups.reserve(hidden))
            let (sigmoids, activations) = (layer.sigmoids.reserve(hidden), layer.activations.reserve(hidden))
            layer.gate.forward(tensors, layer.second.normed.base, count: n, into: gates)
            layer.up.forward(tensors, layer.second.normed.base, count: n, into: ups)
            sigmoids.update(from: gates, count: hidden)
            Value.sigmoid(sigmoids, count: hidden)
            Value.gatedUnit(gates, sigmoids, ups, into: activations, count: hidden)
            layer.down.forward(tensors, activations, count: n, adds: true, into: x)
        }
        final.forward(x, weight: tensors.weights + finalNorm, count: n, width: width, epsilon: epsilon)
    }

    /// The backward pass, from the gradient of `final.normed` in `dNormed` to all tensors.
    func runBackward(_ batch: TokenBatch, _ tensors: DecoderTensors<Value>) {
        let width = configuration.hiddenSize
        let (steps, rows, n) = (batch.steps, batch.rows, batch.inputs.count)
        let dx = dResidual.zeros(n * width)
        let dNormed = dNormed.base
        final.backward(
            dy: dNormed,
            weight: tensors.weights + finalNorm,
            dWeight: tensors.dWeights.map { $0 + finalNorm },
            dx: dx,
            count: n,
            width: width
        )
        for layer in layers.reversed() {
            backwardFeedForward(layer, tensors, dx: dx, dNormed: dNormed, count: n)
            backwardAttention(layer, tensors, dx: dx, dNormed: dNormed, steps: steps, rows: rows)
        }
        guard let dWeights = tensors.dWeights else { return }
        for position in 0..<n {
            let row = dWeights + embedding + batch.inputs[position] * width
            Value.axpy(1, dx + position * width, into: row, count: width)
        }
    }

    private func backwardFeedForward(
        _ layer: DecoderLayer<Value>,
        _ tensors: DecoderTensors<Value>,
        dx: UnsafeMutablePointer<Value>,
        dNormed: UnsafeMutablePointer<Value>,
        count n: Int
    ) {
        let hidden = n * configuration.intermediateSize
        let (dGate, dUp) = (dGate.reserve(hidden), dUp.reserve(hidden))
        let dActivation = dActivation.reserve(hidden)
        let (gates, ups, sigmoids) = (layer.gates.base, layer.ups.base, layer.sigmoids.base)
        layer.down.backward(tensors, x: layer.activations.base, dy: dx, count: n, adds: false, dx: dActivation)
        Value.gatedUnitGradient(
            gates,
            sigmoids,
            ups,
            dy: dActivation,
            dGate: dGate,
            dUp: dUp,
            count: hidden
        )
        let input = layer.second.normed.base
        layer.gate.backward(tensors, x: input, dy: dGate, count: n, adds: false, dx: dNormed)
        layer.up.backward(tensors, x: input, dy: dUp, count: n, adds: true, dx: dNormed)
        layer.second.backward(
            dy: dNormed,
            weight: tensors.weights + layer.feedForwardNorm,
            dWeight: tensors.dWeights.map { $0 + layer.feedForwardNorm },
            dx: dx,
            count: n,
            width: configuration.hiddenSize
        )
    }

    private func backwardAttention(
        _ layer: DecoderLayer<Value>,
        _ tensors: DecoderTensors<Value>,
        dx: UnsafeMutablePointer<Value>,
        dNormed: UnsafeMutablePointer<Value>,
        steps: Int,
        rows: Int
    ) {
        let n = steps * rows
        let dMixed = dMixed.reserve(n * layer.output.input)
        layer.output.backward(tensors, x: layer.mixed.base, dy: dx, count: n, adds: false, dx: dMixed)
        let dQ = dQueries.reserve(n * layer.queries.output)
        let (dK, dV) = (dKeys.zeros(n * layer.keys.output), dValues.zeros(n * layer.values.output))
        let d = configuration.headDimension
        let (queryStride, keyStride) = (rows * layer.queries.output, rows * layer.keys.output)
        let group = configuration.headCount / configuration.keyValueHeadCount
        let scale = 1 / Value(d).squareRoot()
        let dScores = scratch.reserve(steps * steps)
        for b in 0..<rows {
            for head in 0..<configuration.headCount {
                let query = b * layer.queries.output + head * d
                let key = b * layer.keys.output + head / group * d
                let weightRows = layer.attention.base + (b * configuration.headCount + head) * steps * steps
                let weights = MatrixView(weightRows, rows: steps, columns: steps)
                func queryView(_ base: UnsafeMutablePointer<Value>) -> MutableMatrixView<Value> {
                    MutableMatrixView(base + query, rows: steps, columns: d, stride: queryStride)
                }
                func keyView(_ base: UnsafeMutablePointer<Value>) -> MutableMatrixView<Value> {
                    MutableMatrixView(base + key, rows: steps, columns: d, stride: keyStride)
                }
                let dOut = queryView(dMixed).values
                Value.multiply(weights.transposed, by: dOut, into: keyView(dV), adds: true)
                let dScores = MutableMatrixView(dScores, rows: steps, columns: steps)
                Value.multiply(dOut, by: keyView(layer.v.base).values.transposed, into: dScores)
                for step in 0..<steps {
                    let (row, weight) = (dScores.base + step * steps, weights.base + step * steps)
                    let mean = Value.dot(row, weight, count: step + 1)
                    Value.softmaxGradient(row, weight: weight, mean: mean, scale: scale, count: step + 1)
                    Value.clear(row + step + 1, count: steps - step - 1)
                }
                Value.multiply(dScores.values, by: keyView(layer.k.base).values, into: queryView(dQ))
                let queries = queryView(layer.q.base).values
                Value.multiply(dScores.values.transposed, by: queries, into: keyView(dK), adds: true)
            }
        }
        rotate(dQ, heads: configuration.headCount, steps: steps, rows: rows, backwards: true)
        rotate(dK, heads: configuration.keyValueHeadCount, steps: steps, rows: rows, backwards: true)
        let input = layer.first.normed.base
        layer.queries.backward(tensors, x: input, dy: dQ, count: n, adds: false, dx: dNormed)
        layer.keys.backward(tensors, x: input, dy: dK, count: n, adds: true, dx: dNormed)
        layer.values.backward(tensors, x: input, dy: dV, count: n, adds: true, dx: dNormed)
        layer.first.backward(
            dy: dNormed,
            weight: tensors.weights + layer.attentionNorm,
            dWeight: tensors.dWeights.map { $0 + layer.attentionNorm },
            dx: dx,
            count: n,
            width: configuration.hiddenSize
        )
    }

    /// Causal attention of every head of every sequence; the weights are kept for the backward pass.
    private func attend(_ layer: DecoderLayer<Value>, steps: Int, rows: Int) {
        let d = configuration.headDimension
        let (queryStride, keyStride) = (rows * layer.queries.output, rows * layer.keys.output)
        let group = configuration.headCount / configuration.keyValueHeadCount
        let scale = 1 / Value(d).squareRoot()
        let mixed = layer.mixed.reserve(steps * rows * layer.output.input)
        let attention = layer.attention.reserve(rows * configuration.headCount * steps * steps)
        for b in 0..<rows {
            for head in 0..<configuration.headCount {
                let query = b * layer.queries.output + head * d
                let key = b * layer.keys.output + head / group * d
                let weights = attention + (b * configuration.headCount + head) * steps * steps
                let scores = MutableMatrixView(weights, rows: steps, columns: steps)
                let queries = MatrixView(layer.q.base + query, rows: steps, columns: d, stride: queryStride)
                let keys = MatrixView(layer.k.base + key, rows: steps, columns: d, stride: keyStride)
                Value.multiply(queries, by: keys.transposed, into: scores)
                for step in 0..<steps { normalize(weights + step * steps, visible: step + 1, count: steps, scale) }
                let values = MatrixView(layer.v.base + key, rows: steps, columns: d, stride: keyStride)
                let target = MutableMatrixView(mixed + query, rows: steps, columns: d, stride: queryStride)
                Value.multiply(scores.values, by: values, into: target)
            }
        }
    }

    /// Softmax over the visible scores; the others become 0.
    func normalize(_ row: UnsafeMutablePointer<Value>, visible: Int, count: Int, _ scale: Value) {
        Value.scale(row, by: scale, count: visible)
        let largest = Value.maximum(row, count: visible)
        let sum = Value.exponentialSum(row, minus: largest, count: visible)
        Value.scale(row, by: 1 / sum, count: visible)
        Value.clear(row + visible, count: count - visible)
    }

    /// Computes the rotation's sines and cosines for at least `wanted` positions, shape `[steps, d / 2]`.
    func prepareRotation(_ wanted: Int) {
        guard wanted > rotaryLength else { return }
        let steps = max(wanted, 2 * rotaryLength, 64)
        let half = configuration.headDimension / 2
        let (cosines, sines) = (cosines.reserve(steps * half), sines.reserve(steps * half))
        for step in 0..<steps {
            for index in 0..<half {
                let power = -2 * Double(index) / Double(configuration.headDimension)
                let angle = Double(step) * Double.power(configuration.rotaryBase, power)
                cosines[step * half + index] = Value(Double.cosine(angle))
                sines[step * half + index] = Value(Double.sine(angle))
            }
        }
        rotaryLength = steps
    }

    private func rotate(_ x: UnsafeMutablePointer<Value>, heads: Int, steps: Int, rows: Int, backwards: Bool) {
        for step in 0..<steps {
            for b in 0..<rows {
                rotate(x + (step * rows + b) * heads * configuration.headDimension, heads: heads, step, backwards)
            }
        }
    }

    /// Turns the pairs `(i, i + d/2)` of all heads at one position.
    func rotate(_ x: UnsafeMutablePointer<Value>, heads: Int, _ step: Int, _ backwards: Bool) {
        let half = configuration.headDimension / 2
        let (cosines, sines) = (cosines.base + step * half, sines.base + step * half)
        let sign: Value = backwards ? -1 : 1
        for head in 0..<heads {
            let low = x + head * 2 * half
            Value.rotate(low, low + half, cosines: cosines, sines: sines, sign: sign, count: half)
        }
    }
}
