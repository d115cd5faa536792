extension Decoder {
    /// A context without keys and values in any layer.
    package func emptyContext() -> LanguageContext<Value> {
        LanguageContext(memory: [[Value]](repeating: [], count: 2 * configuration.layerCount))
    }

    /// The forward pass of one token, with the keys and values of earlier tokens from the context.
    package func advance(_ context: inout LanguageContext<Value>, by id: Int) -> [Value] {
        let width = configuration.hiddenSize
        let d = configuration.headDimension
        let position = context.length
        let epsilon = Value(configuration.normEpsilon)
        prepareRotation(position + 1)
        var memory = context.memory
        let scores = withTensors(wantsGradient: false) { tensors in
            let x = residual.reserve(width)
            x.update(from: tensors.weights + embedding + id * width, count: width)
            for (index, layer) in layers.enumerated() {
                layer.first.forward(
                    x,
                    weight: tensors.weights + layer.attentionNorm,
                    count: 1,
                    width: width,
                    epsilon: epsilon
                )
                let (q, k) = (layer.q.reserve(layer.queries.output), layer.k.reserve(layer.keys.output))
                let v = layer.v.reserve(layer.values.output)
                layer.queries.forward(tensors, layer.first.normed.base, count: 1, into: q)
                layer.keys.forward(tensors, layer.first.normed.base, count: 1, into: k)
                layer.values.forward(tensors, layer.first.normed.base, count: 1, into: v)
                rotate(q, heads: configuration.headCount, position, false)
                rotate(k, heads: configuration.keyValueHeadCount, position, false)
                memory[2 * index].append(contentsOf: UnsafeBufferPointer(start: k, count: layer.keys.output))
                memory[2 * index + 1].append(contentsOf: UnsafeBufferPointer(start: v, count: layer.values.output))
                let mixed = layer.mixed.reserve(layer.output.input)
                let weights = scratch.reserve(position + 1)
                let group = configuration.headCount / configuration.keyValueHeadCount
                for head in 0..<configuration.headCount {
                    let offset = head / group * d
                    memory[2 * index].withUnsafeBufferPointer { keys in
                        guard let keys = keys.baseAddress else { return }
                        for other in 0...position {
                            weights[other] = Value.dot(
                                q + head * d,
                                keys + other * layer.keys.output + offset,
                                count: d
                            )
                        }
                    }
                    normalize(weights, visible: position + 1, count: position + 1, 1 / Value(d).squareRoot())
                    let target = mixed + head * d
                    Value.clear(target, count: d)
                    memory[2 * index + 1].withUnsafeBufferPointer { values in
                        guard let values = values.baseAddress else { return }
                        for other in 0...position {
                            Value.axpy(
                                weights[other],
                                values + other * layer.values.output + offset,
                                into: target,
                                count: d
                            )
                        }
                    }
                }
                layer.output.forward(tensors, mixed, count: 1, adds: true, into: x)
                layer.second.forward(
                    x,
                    weight: tensors.weights + layer.feedForwardNorm,
                    count: 1,
                    width: width,
                    epsilon: epsilon
                )
                let hidden = configuration.intermediateSize
                let (gates, ups) = (layer.gates.reserve(hidden), layer.ups.reserve(hidden))
                let sigmoids = layer.sigmoids.reserve(hidden)
                layer.gate.forward(tensors, layer.second.normed.base, count: 1, into: gates)
                layer.up.forward(tensors, layer.second.normed.base, count: 1, into: ups)
                sigmoids.update(from: gates, count: hidden)
                Value.sigmoid(sigmoids, count: hidden)
                for index in 0..<hidden { gates[index] *= sigmoids[index] * ups[index] }
                layer.down.forward(tensors, gates, count: 1, adds: true, into: x)
            }
            final.forward(x, weight: tensors.weights + finalNorm, count: 1, width: width, epsilon: epsilon)
            return [Value](unsafeUninitializedCapacity: vocabularySize) { buffer, count in
                guard let base = buffer.baseAddress else { return }
                Value.multiply(
                    MatrixView(final.normed.base, rows: 1, columns: width),
                    by: MatrixView(tensors.weights + head, rows: vocabularySize, columns: width).transposed,
                    into: MutableMatrixView(base, rows: 1, columns: vocabularySize)
                )
                count = vocabularySize
            }
        }
        context = LanguageContext(length: position + 1, memory: memory)
        return scores
    }
}
