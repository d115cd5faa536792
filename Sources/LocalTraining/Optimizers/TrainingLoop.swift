package import Tensors

/// A model that the loop can train: parameters, examples, and the gradient over some of them.
package protocol TrainableModel: AnyObject {
    /// The trained parameters, in the order of the layout that is sent.
    var parameters: [Float] { get set }
    /// The gradient of the mean loss after ``differentiate(_:)``.
    var gradient: [Float] { get set }
    /// The number of examples.
    var exampleCount: Int { get }
    /// Computes the gradient of the mean loss over some examples.
    ///
    /// - Returns: The sums of the metrics; `lossTokens` is the batch's weight in a mean over batches.
    func differentiate(_ examples: ArraySlice<Int>) -> TrainingMetrics
    /// The examples of one epoch, in batches.
    func batches(ofSize size: Int, from examples: [Int], using generator: inout Xoshiro256StarStar) -> [ArraySlice<Int>]
}

extension TrainableModel {
    /// Shuffles the examples and divides them into batches.
    package func batches(
        ofSize size: Int,
        from examples: [Int],
        using generator: inout Xoshiro256StarStar
    ) -> [ArraySlice<Int>] {
        var order = examples
        generator.shuffle(&order)
        return stride(from: 0, to: order.count, by: size).map { order[$0..<min(order.count, $0 + size)] }
    }
}

/// The one loop in which every built-in model is trained on the device.
///
/// A step: the batch's gradient, clipped to a global norm for stability, plus `proximalMu * (w - w0)` (FedProx,
/// arXiv:1812.06127, Eq. 2), plus the fixed correction (SCAFFOLD's `c - c_i`, arXiv:1910.06378, Algorithm 1), then the
/// optimiser. It ends with the epochs, or at a limit on steps or seconds; the update is sent in both cases.
package struct TrainingLoop {
    package var instructions: TrainingInstructions
    /// Seconds since the training began.
    package var elapsed: () -> Double

    package init(_ instructions: TrainingInstructions, elapsed: (() -> Double)? = nil) {
        self.instructions = instructions
        let start = ContinuousClock.now
        self.elapsed =
            elapsed ?? {
                let duration = (ContinuousClock.now - start).components
                return Double(duration.seconds) + Double(duration.attoseconds) * 1e-18
            }
    }

    /// Trains the model in place.
    ///
    /// - Returns: The change of the parameters and sums over the batches trained on.
    /// - Throws: `LocalTrainingError.noData`; `numeric` if a loss, a gradient or a parameter is not finite; `cancelled`.
    package func run(_ model: some TrainableModel, layout: ParameterLayout) throws -> TrainingResult {
        guard model.exampleCount > 0 else { throw LocalTrainingError.noData }
        let start = model.parameters
        var generator = Xoshiro256StarStar(seed: instructions.seed)
        var optimizer = LocalOptimizer(instructions.optimizer, parameterCount: start.count)
        let examples = chosenExamples(of: model.exampleCount, using: &generator)
        var metrics = TrainingMetrics()
        var (stepCount, trainedCount, isPartial) = (0, 0, false)
        training: for _ in 0..<max(1, instructions.epochs) {
            for batch in model.batches(ofSize: max(1, instructions.batchSize), from: examples, using: &generator) {
                try instructions.cancellation?.check()
                // At least one batch is trained on: an update without a step would count examples that were never seen.
                let isInside = stepCount < instructions.maxSteps && elapsed() < instructions.maxSeconds
                guard isInside || trainedCount == 0 else {
                    isPartial = true
                    break training
                }
                let measure = model.differentiate(batch)
                guard measure.nll.isFinite else { throw LocalTrainingError.numeric }
                metrics += measure
                trainedCount += batch.count
                guard measure.lossTokens > 0 else { continue }
                try clip(&model.gradient)
                correct(&model.gradient, at: model.parameters, from: start)
                optimizer.step(&model.parameters, gradient: &model.gradient)
                stepCount += 1
            }
        }
        guard model.parameters.allSatisfy(\.isFinite) else { throw LocalTrainingError.numeric }
        return TrainingResult(
            delta: ParameterVector(layout: layout, values: VectorKernels.difference(model.parameters, start)),
            // Examples that were trained on, not all that there are: a partial update weighs by its work.
            exampleCount: min(examples.count, trainedCount),
            metrics: metrics,
            stepCount: stepCount,
            isPartial: isPartial
        )
    }

    /// The gradient of the mean loss, summed batch by batch, in place of trained parameters (FedSGD).
    ///
    /// The mean is over all examples, or over `maxExamples` of them chosen at random.
    ///
    /// - Returns: `delta` is the gradient itself, with its sign: the server's rule is `w - η Σ n_k/n g_k`.
    package func gradient(_ model: some TrainableModel, layout: ParameterLayout) throws -> TrainingResult {
        guard model.exampleCount > 0 else { throw LocalTrainingError.noData }
        var sum = [Double](repeating: 0, count: model.parameters.count)
        var metrics = TrainingMetrics()
        var generator = Xoshiro256StarStar(seed: instructions.seed)
        let examples = chosenExamples(of: model.exampleCount, using: &generator)
        for start in stride(from: 0, to: examples.count, by: 32) {
            try instructions.cancellation?.check()
            let measure = model.differentiate(examples[start..<min(examples.count, start + 32)])
            guard measure.nll.isFinite else { throw LocalTrainingError.numeric }
            metrics += measure
            let weight = Double(measure.lossTokens)
            for index in sum.indices { sum[index] += weight * Double(model.gradient[index]) }
        }
        let scale = 1 / Double(max(1, metrics.lossTokens))
        let values = sum.map { Float($0 * scale) }
        guard values.allSatisfy(\.isFinite) else { throw LocalTrainingError.numeric }
        return TrainingResult(
            delta: ParameterVector(layout: layout, values: values),
            exampleCount: examples.count,
            metrics: metrics,
            stepCount: 1
        )
    }

    // MARK: -

    /// All examples, or `maxExamples` of them chosen at random: the first ones of a device need not be like the others.
    private func chosenExamples(of count: Int, using generator: inout Xoshiro256StarStar) -> [Int] {
        var examples = Array(0..<count)
        guard count > instructions.maxExamples else { return examples }
        generator.shuffle(&examples)
        return Array(examples[..<max(1, instructions.maxExamples)])
    }

    private func correct(_ gradient: inout [Float], at parameters: [Float], from start: [Float]) {
        let mu = Float(instructions.proximalMu)
        if mu > 0 {
            for index in gradient.indices { gradient[index] += mu * (parameters[index] - start[index]) }
        }
        if let correction = instructions.gradientCorrection {
            VectorKernels.axpy(1, correction, into: &gradient)
        }
    }

    private func clip(_ gradient: inout [Float]) throws {
        let norm = VectorKernels.squaredNorm(gradient).squareRoot()
        guard norm.isFinite else { throw LocalTrainingError.numeric }
        guard norm > instructions.gradientClip else { return }
        VectorKernels.scale(&gradient, by: Float(instructions.gradientClip / norm))
    }
}
