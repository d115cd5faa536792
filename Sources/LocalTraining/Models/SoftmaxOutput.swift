/// The softmax over the vocabulary with cross-entropy loss and its gradient, in blocks of rows.
///
/// Logits and their gradient share one buffer of at most 4 Mi values, whatever the number of positions.
struct SoftmaxOutput<Value: LanguageScalar> {
    /// Where to write gradients; a gradient with a `nil` member is not computed.
    struct Gradients {
        /// `[n, d]`, overwritten.
        var hidden: MutableMatrixView<Value>
        /// `[v, d]`, added to.
        var weight: MutableMatrixView<Value>?
        /// `[v]`, added to.
        var bias: UnsafeMutablePointer<Value>?
    }

    /// Hidden states, `[n, d]`: n positions of width d.
    var hidden: MatrixView<Value>
    /// One row for each of v tokens, `[v, d]`.
    var weight: MatrixView<Value>
    /// `[v]`.
    var bias: UnsafePointer<Value>?
    /// Ids that count when a target is ranked.
    var ordinary: Range<Int>
    /// The id of the unknown token, which as a target is always a miss.
    var unknown: Int?

    static var blockLimit: Int { 4 << 20 }

    /// Writes the logits of some positions to `logits`.
    func logits(_ rows: Range<Int>, into logits: UnsafeMutablePointer<Value>) {
        let v = weight.rows
        if let bias {
            for row in 0..<rows.count { (logits + row * v).update(from: bias, count: v) }
        }
        Value.multiply(
            hidden.rows(rows),
            by: weight.transposed,
            into: MutableMatrixView(logits, rows: rows.count, columns: v),
            adds: bias != nil
        )
    }

    /// Measures all positions; with `gradients`, also differentiates the mean loss over the targets.
    func measure(targets: [Int], scratch: Workspace<Value>, gradients: Gradients?) -> LossMeasure {
        let (count, v) = (hidden.rows, weight.rows)
        let block = max(1, min(count, Self.blockLimit / v))
        let logits = scratch.reserve(block * v)
        let targetCount = targets.reduce(0) { $0 + ($1 >= 0 ? 1 : 0) }
        let scale = targetCount > 0 ? 1 / Value(targetCount) : 0
        var measure = LossMeasure()
        measure.tokens = targetCount
        for start in stride(from: 0, to: count, by: block) {
            let rows = start..<min(count, start + block)
            self.logits(rows, into: logits)
            for row in rows {
                let values = logits + (row - start) * v
                let target = targets[row]
                guard target >= 0 else {
                    if gradients != nil { Value.clear(values, count: v) }
                    continue
                }
                let own = values[target]
                if target != unknown {
                    let rank = Value.countAbove(own, values + ordinary.lowerBound, count: ordinary.count)
                    if rank < 1 { measure.hit1 += 1 }
                    if rank < 3 { measure.hit3 += 1 }
                }
                let largest = Value.maximum(values, count: v)
                let sum = Value.exponentialSum(values, minus: largest, count: v)
                measure.nll += Double(largest - own + Value.logarithm(sum))
                if gradients != nil {
                    Value.scale(values, by: scale / sum, count: v)
                    values[target] -= scale
                }
            }
            guard let gradients else { continue }
            if let bias = gradients.bias {
                for row in 0..<rows.count { Value.axpy(1, logits + row * v, into: bias, count: v) }
            }
            let dLogits = MatrixView(logits, rows: rows.count, columns: v)
            if let target = gradients.weight {
                Value.multiply(dLogits.transposed, by: hidden.rows(rows), into: target, adds: true)
            }
            Value.multiply(dLogits, by: weight, into: gradients.hidden.rows(rows))
        }
        return measure
    }
}
