import LocalTraining
import Tensors

/// A malicious client: it trains honestly and sends minus five times what it learned.
///
/// The size is such that a plain mean over a cohort with a fifth of them learns nothing, and small enough that no norm
/// stands out by orders of magnitude.
struct PoisonedTrainer: LocalTrainer {
    let honest: any LocalTrainer
    var factor: Float = -5

    func train(model: ParameterVector, instructions: TrainingInstructions) async throws -> TrainingResult {
        var result = try await honest.train(model: model, instructions: instructions)
        VectorKernels.scale(&result.delta.values, by: factor)
        return result
    }

    var canRehearse: Bool { honest.canRehearse }

    func check(_ task: TrainingTask, model: ParameterVector, instructions: TrainingInstructions) async throws {
        try await honest.check(task, model: model, instructions: instructions)
    }

    func rehearse(_ task: TrainingTask, model: ParameterVector, instructions: TrainingInstructions) async throws {
        try await honest.rehearse(task, model: model, instructions: instructions)
    }
}
