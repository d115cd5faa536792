package import Tensors

/// Softmax regression, or a perceptron with ReLU layers; one logit and the logistic loss for two classes.
package final class TabularNetwork<Value: Scalar> {
    package let widths: [Int]
    package let l2: Value
    package var parameters: [Value]
    package var gradient: [Value]
    private let weights: [Int], biases: [Int]
    private var activations: [[Value]] = []

    /// `widths` are those of the input, the hidden layers and the output.
    package init(widths: [Int], l2: Double = 0, parameters: [Value]) {
        let layout = Self.layout(widths)
        precondition(parameters.count == layout.parameterCount, "parameters do not fill the layout")
        self.widths = widths
        self.l2 = Value(l2)
        self.parameters = parameters
        gradient = [Value](repeating: 0, count: parameters.count)
        weights = (0..<(widths.count - 1)).map { layout.range(of: "layers.\($0).weight")?.lowerBound ?? 0 }
        biases = (0..<(widths.count - 1)).map { layout.range(of: "layers.\($0).bias")?.lowerBound ?? 0 }
    }

    package static func layout(_ widths: [Int]) -> ParameterLayout {
        ParameterLayout(
            (0..<(widths.count - 1)).flatMap { index -> [TensorSpecification] in
                [
                    .init(name: "layers.\(index).weight", shape: [widths[index + 1], widths[index]]),
                    .init(name: "layers.\(index).bias", shape: [widths[index + 1]]),
                ]
            }
        )
    }

    /// The logits of `rows`, `[n, outputs]`, from inputs `[n, widths[0]]`.
    package func logits(_ inputs: [Value], rows: Int) -> [Value] {
        activations = [inputs]
        for layer in 0..<weights.count {
            let (input, output) = (widths[layer], widths[layer + 1])
            var next = [Value](repeating: 0, count: rows * output)
            for row in 0..<rows {
                for unit in 0..<output { next[row * output + unit] = parameters[biases[layer] + unit] }
            }
            withWeights(layer) { weights in
                activations[layer].withMatrix(rows: rows, columns: input) { values in
                    next.withMutableMatrix(rows: rows, columns: output) {
                        Value.multiply(values, by: weights.transposed, into: $0, adds: true)
                    }
                }
            }
            if layer + 1 < weights.count {
                for index in next.indices { next[index] = max(0, next[index]) }
            }
            activations.append(next)
        }
        return activations.last ?? []
    }

    /// The sum of losses and the number of hits; on request also the gradient of the mean loss and the L2 term.
    package func pass(
        _ inputs: [Value],
        targets: [Int],
        wantsGradient: Bool
    ) -> (loss: Double, hits: Int, scores: [Double]) {
        let rows = targets.count
        let outputs = widths.last ?? 1
        var delta = logits(inputs, rows: rows)
        var (loss, hits, scores) = (0.0, 0, [Double]())
        let share = 1 / Value(max(1, rows))
        for row in 0..<rows {
            if outputs == 1 {
                let logit = delta[row]
                // log(1 + exp(-|z|)) never overflows.
                let tail = Value.logarithm(1 + Value.exponential(-abs(logit)))
                loss += Double(tail + max(0, targets[row] == 1 ? -logit : logit))
                if (logit > 0) == (targets[row] == 1) { hits += 1 }
                let probability =
                    logit >= 0 ? 1 / (1 + Value.exponential(-logit)) : 1 - 1 / (1 + Value.exponential(logit))
                scores.append(Double(probability))
                delta[row] = (probability - (targets[row] == 1 ? 1 : 0)) * share
            } else {
                let range = row * outputs..<(row + 1) * outputs
                let own = delta[row * outputs + targets[row]]
                let largest = delta[range].max() ?? own
                let sum = delta[range].reduce(Value(0)) { $0 + Value.exponential($1 - largest) }
                loss += Double(largest - own + Value.logarithm(sum))
                if !delta[range].contains(where: { $0 > own }) { hits += 1 }
                for index in range { delta[index] = Value.exponential(delta[index] - largest) / sum * share }
                delta[row * outputs + targets[row]] -= share
            }
        }
        if wantsGradient { backward(delta, rows: rows) }
        return (loss, hits, scores)
    }

    /// Calls `body` with a layer's weights, `[output, input]`.
    private func withWeights(_ layer: Int, _ body: (MatrixView<Value>) -> Void) {
        parameters.withUnsafeBufferPointer { parameters in
            guard let base = parameters.baseAddress else { return }
            body(MatrixView(base + weights[layer], rows: widths[layer + 1], columns: widths[layer]))
        }
    }

    private func backward(_ outputDelta: [Value], rows: Int) {
        var delta = outputDelta
        for index in gradient.indices { gradient[index] = 0 }
        for layer in stride(from: weights.count - 1, through: 0, by: -1) {
            let (input, output) = (widths[layer], widths[layer + 1])
            for row in 0..<rows {
                for unit in 0..<output { gradient[biases[layer] + unit] += delta[row * output + unit] }
            }
            var previous = [Value](repeating: 0, count: layer > 0 ? rows * input : 0)
            withWeights(layer) { weights in
                gradient.withUnsafeMutableBufferPointer { gradient in
                    guard let base = gradient.baseAddress else { return }
                    let target = MutableMatrixView(base + self.weights[layer], rows: output, columns: input)
                    delta.withMatrix(rows: rows, columns: output) { delta in
                        activations[layer].withMatrix(rows: rows, columns: input) {
                            Value.multiply(delta.transposed, by: $0, into: target)
                        }
                        guard layer > 0 else { return }
                        previous.withMutableMatrix(rows: rows, columns: input) {
                            Value.multiply(delta, by: weights, into: $0)
                        }
                    }
                    Value.axpy(l2, weights.base, into: target.base, count: input * output)
                }
            }
            for index in previous.indices where activations[layer][index] <= 0 { previous[index] = 0 }
            delta = previous
        }
    }
}
