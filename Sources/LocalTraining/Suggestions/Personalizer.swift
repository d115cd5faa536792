package import Tensors

/// Fits a private copy of a model to one user's texts; nothing of it leaves the device.
package struct Personalizer {
    /// The parameters that are changed.
    package enum Scope: String, CaseIterable, Sendable {
        /// All that are trained: the weights, or the adapters.
        case all
        /// `output.bias` alone: the user's word frequencies.
        case outputBias = "output-bias"
    }

    /// The result of a personalisation.
    package struct Outcome: Sendable {
        /// The private copy, or the model as it was.
        package var model: ParameterVector
        /// Top-1 recall on the held-out fifth, before and after.
        package var before: Double
        package var after: Double
        /// Whether the copy is better and was kept.
        package var isKept: Bool
    }

    private let architecture: any LanguageArchitecture
    private let base: ParameterVector?

    package init(architecture: any LanguageArchitecture, base: ParameterVector?) {
        self.architecture = architecture
        self.base = base
    }

    /// Trains on the first four fifths of the texts, and keeps the copy only if top-1 recall on the last fifth rises.
    ///
    /// - Throws: `LocalTrainingError.noData` with fewer than two texts.
    package func personalize(
        _ model: ParameterVector,
        texts: [String],
        scope: Scope,
        instructions: TrainingInstructions
    ) throws -> Outcome {
        guard texts.count >= 2 else { throw LocalTrainingError.noData }
        let split = max(1, min(texts.count - 1, texts.count * 4 / 5))
        let training = LanguageTrainer(architecture: architecture, texts: Array(texts[..<split]))
        let heldOut = LanguageTrainer(architecture: architecture, texts: Array(texts[split...]))
        var instructions = instructions
        instructions.base = base
        var delta = try training.train(model: model, instructions: instructions).delta
        if scope == .outputBias {
            guard let kept = delta.layout.range(of: "output.bias") else {
                throw LocalTrainingError.modelMismatch(reason: "\(type(of: architecture).name) has no output.bias")
            }
            for index in delta.values.indices where !kept.contains(index) { delta.values[index] = 0 }
        }
        var copy = model
        VectorKernels.axpy(1, delta.values, into: &copy.values)
        let before = try heldOut.evaluate(model: model, base: base).accuracy
        let after = try heldOut.evaluate(model: copy, base: base).accuracy
        let isKept = after > before
        return Outcome(model: isKept ? copy : model, before: before, after: after, isKept: isKept)
    }
}
