import Tensors

/// Forward and backward pass of the CIFG-LSTM, over batches of equally long windows.
///
/// Gates in the order f, o, g; `c = f c + (1-f) g`, `h = o tanh c`, `r = h Wp^T`, `logits = r E^T + b`. Each product over all
/// positions of a batch is one matrix product; only the two recurrent products run step by step.
package final class CIFGLSTM<Value: RecurrentScalar>: LanguageNetwork {
    package let configuration: CIFGLSTMConfiguration
    /// Sorted by tensor name, as the layout has them.
    package var parameters: [Value]
    package var gradient: [Value]
    package var ordinary: Range<Int>
    package var unknown: Int? = 1
    package var vocabularySize: Int { configuration.vocabularySize }
    package var lengthLimit: Int? { nil }
    private let embedding: Int, inputWeight: Int, recurrentWeight: Int, bias: Int, projection: Int, outputBias: Int
    private let x = Workspace<Value>(), z = Workspace<Value>(), squashed = Workspace<Value>()
    private let cells = Workspace<Value>(), hidden = Workspace<Value>(), outputs = Workspace<Value>()
    private let logits = Workspace<Value>(), dOutputs = Workspace<Value>(), dz = Workspace<Value>()
    private let dx = Workspace<Value>(), dh = Workspace<Value>(), dc = Workspace<Value>(), dr = Workspace<Value>()
    private let recurrentTransposed = Workspace<Value>(), projectionTransposed = Workspace<Value>()
    private var lastState: (outputs: [Value], cells: [Value]) = ([], [])

    package init(configuration: CIFGLSTMConfiguration, parameters: [Value]) {
        let layout = configuration.layout
        precondition(parameters.count == layout.parameterCount, "parameters do not fill the layout")
        self.configuration = configuration
        self.parameters = parameters
        gradient = [Value](repeating: 0, count: parameters.count)
        ordinary = min(4, configuration.vocabularySize - 1)..<configuration.vocabularySize
        func start(_ name: String) -> Int { layout.range(of: name)?.lowerBound ?? 0 }
        embedding = start("embedding.weight")
        inputWeight = start("cell.weight_ih")
        recurrentWeight = start("cell.weight_hh")
        bias = start("cell.bias")
        projection = start("proj.weight")
        outputBias = start("output.bias")
    }

    package func measure(_ batch: TokenBatch) -> LossMeasure {
        parameters.withUnsafeBufferPointer { parameters in
            guard let p = parameters.baseAddress else { return LossMeasure() }
            runRecurrence(batch, p)
            keepState(batch)
            return output(batch, p).measure(targets: batch.targets, scratch: logits, gradients: nil)
        }
    }

    package func differentiate(_ batch: TokenBatch) -> LossMeasure {
        let count = gradient.count
        return parameters.withUnsafeBufferPointer { parameters in
            gradient.withUnsafeMutableBufferPointer { gradient in
                guard let p = parameters.baseAddress, let dp = gradient.baseAddress else { return LossMeasure() }
                Value.clear(dp, count: count)
                runRecurrence(batch, p)
                keepState(batch)
                let (n, d) = (batch.inputs.count, configuration.embeddingDimension)
                let measure = output(batch, p).measure(
                    targets: batch.targets,
                    scratch: logits,
                    gradients: .init(
                        hidden: MutableMatrixView(dOutputs.reserve(n * d), rows: n, columns: d),
                        weight: MutableMatrixView(dp + embedding, rows: vocabularySize, columns: d),
                        bias: dp + outputBias
                    )
                )
                runBackward(batch, p, dp)
                return measure
            }
        }
    }

    package func scores(_ batch: TokenBatch) -> [Value] {
        parameters.withUnsafeBufferPointer { parameters in
            guard let p = parameters.baseAddress else { return [] }
            runRecurrence(batch, p)
            return [Value](unsafeUninitializedCapacity: batch.inputs.count * vocabularySize) { buffer, count in
                guard let base = buffer.baseAddress else { return }
                output(batch, p).logits(0..<batch.inputs.count, into: base)
                count = buffer.count
            }
        }
    }

    package func emptyContext() -> LanguageContext<Value> {
        LanguageContext(memory: [
            [Value](repeating: 0, count: configuration.embeddingDimension),
            [Value](repeating: 0, count: configuration.hiddenDimension),
        ])
    }

    package func advance(_ context: inout LanguageContext<Value>, by id: Int) -> [Value] {
        lastState = (context.memory[0], context.memory[1])
        let batch = TokenBatch(steps: 1, rows: 1, inputs: [id], targets: [-1], continues: [true])
        let scores = scores(batch)
        keepState(batch)
        context = LanguageContext(length: context.length + 1, memory: [lastState.outputs, lastState.cells])
        return scores
    }

    // MARK: - Forward

    private func output(_ batch: TokenBatch, _ p: UnsafePointer<Value>) -> SoftmaxOutput<Value> {
        let d = configuration.embeddingDimension
        return SoftmaxOutput(
            hidden: MatrixView(outputs.base + batch.rows * d, rows: batch.inputs.count, columns: d),
            weight: MatrixView(p + embedding, rows: vocabularySize, columns: d),
            bias: p + outputBias,
            ordinary: ordinary,
            unknown: unknown
        )
    }

    /// Fills `x`, `z` (then f, o, g), `cells`, `squashed`, `hidden` and `outputs`; row block t of `cells` and `outputs` is
    /// the state before step t.
    private func runRecurrence(_ batch: TokenBatch, _ p: UnsafePointer<Value>) {
        let (d, h) = (configuration.embeddingDimension, configuration.hiddenDimension)
        let (steps, rows) = (batch.steps, batch.rows)
        let n = steps * rows
        let (x, z) = (x.reserve(n * d), z.reserve(n * 3 * h))
        let (cells, outputs) = (cells.reserve((n + rows) * h), outputs.reserve((n + rows) * d))
        let (squashed, hidden) = (squashed.reserve(n * h), hidden.reserve(n * h))
        for position in 0..<n {
            (x + position * d).update(from: p + embedding + batch.inputs[position] * d, count: d)
            (z + position * 3 * h).update(from: p + bias, count: 3 * h)
        }
        Value.clear(cells, count: rows * h)
        Value.clear(outputs, count: rows * d)
        for (row, goesOn) in batch.continues.enumerated() where goesOn && lastState.cells.count >= (row + 1) * h {
            for index in 0..<h { cells[row * h + index] = lastState.cells[row * h + index] }
            for index in 0..<d { outputs[row * d + index] = lastState.outputs[row * d + index] }
        }
        Value.multiply(
            MatrixView(x, rows: n, columns: d),
            by: MatrixView(p + inputWeight, rows: 3 * h, columns: d).transposed,
            into: MutableMatrixView(z, rows: n, columns: 3 * h),
            adds: true
        )
        let recurrentWeights = MatrixView(p + recurrentWeight, rows: 3 * h, columns: d)
        let projectionWeights = MatrixView(p + projection, rows: d, columns: h)
        // Transposed once for a batch, so that each step reads weights in the order of its products. Not worth it for a single step.
        let isWorthwhile = steps > 1
        let recurrent = recurrentTransposed.reserve(isWorthwhile ? 3 * h * d : 1)
        let projecting = projectionTransposed.reserve(isWorthwhile ? d * h : 1)
        if isWorthwhile {
            Value.transpose(recurrentWeights.base, rows: 3 * h, columns: d, into: recurrent)
            Value.transpose(projectionWeights.base, rows: d, columns: h, into: projecting)
        }
        for step in 0..<steps {
            let row = step * rows
            let gates = z + row * 3 * h
            let earlier = MatrixView(outputs + row * d, rows: rows, columns: d)
            let target = MutableMatrixView(gates, rows: rows, columns: 3 * h)
            if isWorthwhile {
                let weights = MatrixView(recurrent, rows: d, columns: 3 * h)
                Value.multiplyFewRows(earlier, by: weights, into: target, adds: true)
            } else {
                Value.multiply(earlier, by: recurrentWeights.transposed, into: target, adds: true)
            }
            for b in 0..<rows {
                Value.cell(
                    gates + b * 3 * h,
                    before: cells + (row + b) * h,
                    after: cells + (row + rows + b) * h,
                    squashed: squashed + (row + b) * h,
                    hidden: hidden + (row + b) * h,
                    count: h
                )
            }
            let states = MatrixView(hidden + row * h, rows: rows, columns: h)
            let output = MutableMatrixView(outputs + (row + rows) * d, rows: rows, columns: d)
            if isWorthwhile {
                let weights = MatrixView(projecting, rows: h, columns: d)
                Value.multiplyFewRows(states, by: weights, into: output, adds: false)
            } else {
                Value.multiply(states, by: projectionWeights.transposed, into: output)
            }
        }
    }

    /// Keeps the state after the last step, for rows of the next batch that continue.
    private func keepState(_ batch: TokenBatch) {
        guard !batch.continues.isEmpty else { return }
        let (d, h) = (configuration.embeddingDimension, configuration.hiddenDimension)
        let n = batch.steps * batch.rows
        lastState.cells = Array(UnsafeBufferPointer(start: cells.base + n * h, count: batch.rows * h))
        lastState.outputs = Array(UnsafeBufferPointer(start: outputs.base + n * d, count: batch.rows * d))
    }

    // MARK: - Backward

    /// Backward pass from the gradient of the outputs in `dOutputs`; adds the gradients of all tensors to `dp`.
    private func runBackward(_ batch: TokenBatch, _ p: UnsafePointer<Value>, _ dp: UnsafeMutablePointer<Value>) {
        let (d, h) = (configuration.embeddingDimension, configuration.hiddenDimension)
        let (steps, rows) = (batch.steps, batch.rows)
        let n = steps * rows
        let (x, hidden, r, dOutputs) = (x.base, hidden.base, outputs.base, dOutputs.base)
        let (dz, dx, dh) = (dz.reserve(n * 3 * h), dx.reserve(n * d), dh.reserve(rows * h))
        let dr = dr.zeros(rows * d)
        _ = dc.zeros(rows * h)
        let projectionWeights = MatrixView(p + projection, rows: d, columns: h)
        let recurrentWeights = MatrixView(p + recurrentWeight, rows: 3 * h, columns: d)
        let dStates = MutableMatrixView(dh, rows: rows, columns: h)
        let dEarlier = MutableMatrixView(dr, rows: rows, columns: d)
        for step in stride(from: steps - 1, through: 0, by: -1) {
            let row = step * rows
            let dOutput = MutableMatrixView(dOutputs + row * d, rows: rows, columns: d)
            Value.axpy(1, dr, into: dOutput.base, count: rows * d)
            Value.multiplyFewRows(dOutput.values, by: projectionWeights, into: dStates, adds: false)
            for b in 0..<rows { gateGradients(position: row + b, b, dz) }
            let dGates = MatrixView(dz + row * 3 * h, rows: rows, columns: 3 * h)
            Value.multiplyFewRows(dGates, by: recurrentWeights, into: dEarlier, adds: false)
        }
        let dGates = MatrixView(dz, rows: n, columns: 3 * h)
        func gateTarget(_ offset: Int) -> MutableMatrixView<Value> {
            MutableMatrixView(dp + offset, rows: 3 * h, columns: d)
        }
        Value.multiply(dGates.transposed, by: MatrixView(x, rows: n, columns: d), into: gateTarget(inputWeight))
        Value.multiply(dGates.transposed, by: MatrixView(r, rows: n, columns: d), into: gateTarget(recurrentWeight))
        Value.multiply(
            MatrixView(dOutputs, rows: n, columns: d).transposed,
            by: MatrixView(hidden, rows: n, columns: h),
            into: MutableMatrixView(dp + projection, rows: d, columns: h)
        )
        Value.multiply(
            dGates,
            by: MatrixView(p + inputWeight, rows: 3 * h, columns: d),
            into: MutableMatrixView(dx, rows: n, columns: d)
        )
        for position in 0..<n {
            Value.axpy(1, dz + position * 3 * h, into: dp + bias, count: 3 * h)
            Value.axpy(1, dx + position * d, into: dp + embedding + batch.inputs[position] * d, count: d)
        }
    }

    /// The backward step of one sequence through the cell; `dc` becomes the gradient of the cell state before the step.
    private func gateGradients(position: Int, _ b: Int, _ dz: UnsafeMutablePointer<Value>) {
        let h = configuration.hiddenDimension
        Value.cellGradient(
            z.base + position * 3 * h,
            before: cells.base + position * h,
            squashed: squashed.base + position * h,
            dHidden: dh.base + b * h,
            dCell: dc.base + b * h,
            dGates: dz + position * 3 * h,
            count: h
        )
    }
}
