import Tensors

/// Forward and backward pass of the CIFG-LSTM, over batches of equally long windows.
///
/// Gates in the order f, o, g; `c = f c + (1-f) g`, `h = o tanh c`, `r = h Wp^T`, `logits = r E^T + b`. Time-major
/// buffers `[T, B, .]` are made once per size and used again.
package struct CIFGLSTM<Value: Scalar> {
    /// One batch: token ids, time-major `[T, B]`; a target of -1 is no target.
    package struct Batch {
        package var steps: Int
        package var rows: Int
        package var inputs: [Int]
        package var targets: [Int]

        package init(steps: Int, rows: Int, inputs: [Int], targets: [Int]) {
            self.steps = steps
            self.rows = rows
            self.inputs = inputs
            self.targets = targets
        }
    }

    /// What one pass measured.
    package struct Measure {
        package var nll = 0.0
        package var tokens = 0
        package var hit1 = 0
        package var hit3 = 0
    }

    package let configuration: CIFGLSTMConfiguration
    /// Sorted by tensor name, as the layout has them.
    package var parameters: [Value]
    package private(set) var gradient: [Value]
    private let embedding: Int, inputWeight: Int, recurrentWeight: Int, bias: Int, projection: Int, outputBias: Int
    private var x: [Value] = [], z: [Value] = [], cells: [Value] = [], hidden: [Value] = [], outputs: [Value] = []
    private var squashed: [Value] = [], logits: [Value] = [], dOutputs: [Value] = [], dz: [Value] = []
    private var dx: [Value] = [], dh: [Value] = [], dc: [Value] = [], dr: [Value] = []

    package init(configuration: CIFGLSTMConfiguration, parameters: [Value]) {
        let layout = configuration.layout
        precondition(parameters.count == layout.parameterCount, "parameters do not fill the layout")
        self.configuration = configuration
        self.parameters = parameters
        gradient = [Value](repeating: 0, count: parameters.count)
        func start(_ name: String) -> Int { layout.range(of: name)?.lowerBound ?? 0 }
        embedding = start("embedding.weight")
        inputWeight = start("cell.weight_ih")
        recurrentWeight = start("cell.weight_hh")
        bias = start("cell.bias")
        projection = start("proj.weight")
        outputBias = start("output.bias")
    }

    private mutating func reserve(_ batch: Batch) {
        let (d, h, v) = (configuration.embeddingDimension, configuration.hiddenDimension, configuration.vocabularySize)
        let n = batch.steps * batch.rows
        func fit(_ buffer: inout [Value], _ count: Int) {
            if buffer.count != count { buffer = [Value](repeating: 0, count: count) }
        }
        fit(&x, n * d)
        fit(&z, n * 3 * h)
        fit(&cells, (n + batch.rows) * h)
        fit(&squashed, n * h)
        fit(&hidden, n * h)
        fit(&outputs, (n + batch.rows) * d)
        fit(&logits, n * v)
    }

    /// Runs the model and measures; `logits` then hold the logits, or their gradient when `wantsGradient`.
    package mutating func forward(_ batch: Batch, wantsGradient: Bool) -> Measure {
        reserve(batch)
        let (d, h, v) = (configuration.embeddingDimension, configuration.hiddenDimension, configuration.vocabularySize)
        let (steps, rows) = (batch.steps, batch.rows)
        let n = steps * rows
        for position in 0..<n {
            let source = embedding + batch.inputs[position] * d
            for index in 0..<d { x[position * d + index] = parameters[source + index] }
            for index in 0..<(3 * h) { z[position * 3 * h + index] = parameters[bias + index] }
        }
        // Row block t of `cells` and `outputs` is the state before step t.
        for index in 0..<(rows * h) { cells[index] = 0 }
        for index in 0..<(rows * d) { outputs[index] = 0 }
        let parameters = self.parameters
        parameters.withUnsafeBufferPointer { parameters in
            guard let p = parameters.baseAddress else { return }
            Value.gemm(false, true, n, 3 * h, d, x, d, p + inputWeight, d, 1, &z, 3 * h)
            for step in 0..<steps {
                let row = step * rows
                z.withUnsafeMutableBufferPointer { z in
                    outputs.withUnsafeBufferPointer { r in
                        guard let z = z.baseAddress, let r = r.baseAddress else { return }
                        Value.gemm(
                            false,
                            true,
                            rows,
                            3 * h,
                            d,
                            r + row * d,
                            d,
                            p + recurrentWeight,
                            d,
                            1,
                            z + row * 3 * h,
                            3 * h
                        )
                    }
                }
                for b in row..<(row + rows) {
                    for unit in 0..<h {
                        let f = Self.sigmoid(z[b * 3 * h + unit])
                        let o = Self.sigmoid(z[b * 3 * h + h + unit])
                        let g = Value.hyperbolicTangent(z[b * 3 * h + 2 * h + unit])
                        let cell = f * cells[b * h + unit] + (1 - f) * g
                        let squash = Value.hyperbolicTangent(cell)
                        z[b * 3 * h + unit] = f
                        z[b * 3 * h + h + unit] = o
                        z[b * 3 * h + 2 * h + unit] = g
                        cells[(b + rows) * h + unit] = cell
                        squashed[b * h + unit] = squash
                        hidden[b * h + unit] = o * squash
                    }
                }
                outputs.withUnsafeMutableBufferPointer { r in
                    hidden.withUnsafeBufferPointer { hidden in
                        guard let r = r.baseAddress, let hidden = hidden.baseAddress else { return }
                        Value.gemm(
                            false,
                            true,
                            rows,
                            d,
                            h,
                            hidden + row * h,
                            h,
                            p + projection,
                            h,
                            0,
                            r + (row + rows) * d,
                            d
                        )
                    }
                }
            }
            for position in 0..<n {
                for index in 0..<v { logits[position * v + index] = p[outputBias + index] }
            }
            outputs.withUnsafeBufferPointer { r in
                guard let r = r.baseAddress else { return }
                Value.gemm(false, true, n, v, d, r + rows * d, d, p + embedding, d, 1, &logits, v)
            }
        }
        return measure(batch, wantsGradient: wantsGradient)
    }

    private mutating func measure(_ batch: Batch, wantsGradient: Bool) -> Measure {
        let v = configuration.vocabularySize
        let count = batch.targets.reduce(0) { $0 + ($1 >= 0 ? 1 : 0) }
        var measure = Measure()
        measure.tokens = count
        let scale = count > 0 ? 1 / Value(count) : 0
        logits.withUnsafeMutableBufferPointer { logits in
            for position in 0..<(batch.steps * batch.rows) {
                let target = batch.targets[position]
                let row = UnsafeMutableBufferPointer(rebasing: logits[(position * v)..<((position + 1) * v)])
                guard target >= 0 else {
                    if wantsGradient { row.update(repeating: 0) }
                    continue
                }
                var largest = row[0]
                var rank = 0
                let own = row[target]
                for index in 0..<v {
                    largest = max(largest, row[index])
                    if index >= 4 && row[index] > own { rank += 1 }
                }
                var sum: Value = 0
                for index in 0..<v { sum += Value.exponential(row[index] - largest) }
                let logSum = largest + Value.logarithm(sum)
                measure.nll += Double(logSum - own)
                if rank < 1 { measure.hit1 += 1 }
                if rank < 3 { measure.hit3 += 1 }
                if wantsGradient {
                    for index in 0..<v { row[index] = Value.exponential(row[index] - logSum) * scale }
                    row[target] -= scale
                }
            }
        }
        return measure
    }

    /// The gradient of the mean loss over the batch's targets; call after `forward` with `wantsGradient`.
    package mutating func backward(_ batch: Batch) {
        let (d, h, v) = (configuration.embeddingDimension, configuration.hiddenDimension, configuration.vocabularySize)
        let (steps, rows) = (batch.steps, batch.rows)
        let n = steps * rows
        // Locals, so that no pointer into `self` is held while a method of `self` runs.
        let (parameters, outputs) = (self.parameters, self.outputs)
        var gradient = self.gradient
        self.gradient = []
        defer { self.gradient = gradient }
        for index in gradient.indices { gradient[index] = 0 }
        for buffer in [\Self.dOutputs, \Self.dx] where self[keyPath: buffer].count != n * d {
            self[keyPath: buffer] = [Value](repeating: 0, count: n * d)
        }
        if dz.count != n * 3 * h { dz = [Value](repeating: 0, count: n * 3 * h) }
        dh = [Value](repeating: 0, count: rows * h)
        dc = [Value](repeating: 0, count: rows * h)
        dr = [Value](repeating: 0, count: rows * d)
        for position in 0..<n {
            for index in 0..<v { gradient[outputBias + index] += logits[position * v + index] }
        }
        parameters.withUnsafeBufferPointer { parameters in
            gradient.withUnsafeMutableBufferPointer { gradient in
                outputs.withUnsafeBufferPointer { outputs in
                    guard let p = parameters.baseAddress, let dp = gradient.baseAddress, let r = outputs.baseAddress
                    else { return }
                    Value.gemm(true, false, v, d, n, logits, v, r + rows * d, d, 1, dp + embedding, d)
                    Value.gemm(false, false, n, d, v, logits, v, p + embedding, d, 0, &dOutputs, d)
                    for step in stride(from: steps - 1, through: 0, by: -1) {
                        backwardStep(step * rows, rows: rows, parameters: p)
                    }
                    Value.gemm(true, false, 3 * h, d, n, dz, 3 * h, x, d, 0, dp + inputWeight, d)
                    Value.gemm(true, false, 3 * h, d, n, dz, 3 * h, r, d, 0, dp + recurrentWeight, d)
                    Value.gemm(true, false, d, h, n, dOutputs, d, hidden, h, 0, dp + projection, h)
                    Value.gemm(false, false, n, d, 3 * h, dz, 3 * h, p + inputWeight, d, 0, &dx, d)
                    for position in 0..<n {
                        for index in 0..<(3 * h) { dp[bias + index] += dz[position * 3 * h + index] }
                        let row = embedding + batch.inputs[position] * d
                        for index in 0..<d { dp[row + index] += dx[position * d + index] }
                    }
                }
            }
        }
    }

    /// One step back; on return `dOutputs` of this step hold the whole gradient of r, and `dr` what flows further back.
    private mutating func backwardStep(_ row: Int, rows: Int, parameters p: UnsafePointer<Value>) {
        let (d, h) = (configuration.embeddingDimension, configuration.hiddenDimension)
        for index in 0..<(rows * d) { dOutputs[row * d + index] += dr[index] }
        dOutputs.withUnsafeBufferPointer { dOutputs in
            guard let source = dOutputs.baseAddress else { return }
            Value.gemm(false, false, rows, h, d, source + row * d, d, p + projection, h, 0, &dh, h)
        }
        for b in 0..<rows {
            for unit in 0..<h {
                let gate = (row + b) * 3 * h + unit
                let (f, o, g) = (z[gate], z[gate + h], z[gate + 2 * h])
                let squash = squashed[(row + b) * h + unit]
                let dHidden = dh[b * h + unit]
                let dCell = dc[b * h + unit] + dHidden * o * (1 - squash * squash)
                let before = cells[(row + b) * h + unit]
                dz[gate] = dCell * (before - g) * f * (1 - f)
                dz[gate + h] = dHidden * squash * o * (1 - o)
                dz[gate + 2 * h] = dCell * (1 - f) * (1 - g * g)
                dc[b * h + unit] = dCell * f
            }
        }
        dz.withUnsafeBufferPointer { dz in
            guard let source = dz.baseAddress else { return }
            Value.gemm(false, false, rows, d, 3 * h, source + row * 3 * h, 3 * h, p + recurrentWeight, d, 0, &dr, d)
        }
    }

    /// The logits of the last forward pass at one position.
    package func logits(at position: Int) -> ArraySlice<Value> {
        logits[(position * configuration.vocabularySize)..<((position + 1) * configuration.vocabularySize)]
    }

    private static func sigmoid(_ value: Value) -> Value {
        if value >= 0 { return 1 / (1 + Value.exponential(-value)) }
        let power = Value.exponential(value)
        return power / (1 + power)
    }
}
