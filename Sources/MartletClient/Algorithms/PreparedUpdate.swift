import DifferentialPrivacy
import Foundation
import LocalTraining
import Tensors
import UpdateCompression
import WireFormat

/// What leaves the device: checked, clipped and noised as the run asks.
struct PreparedUpdate: Sendable {
    /// SHA-256 of the file that was written.
    var digest: Data
    /// The device's next control variate, to be kept when the update was accepted.
    var control: Data?
    /// What a sparse update has left out, to be kept when the update was accepted.
    var feedback: ErrorFeedback?

    /// Does one assignment's work and writes the update as a safetensors file, which is on the disk then.
    ///
    /// - Throws: ``LocalTrainingError``, ``PrivacyError``, ``ClientError``, or the trainer's own error.
    init(
        _ assignment: AssignmentBody,
        model: ParameterVector,
        trainer: any LocalTrainer,
        instructions: TrainingInstructions,
        controls: ControlVariateStep?,
        feedback: ErrorFeedback,
        path: String
    ) throws {
        guard let encoding = UpdateEncoding(rawValue: assignment.training.encoding) else {
            throw ClientError(
                code: "model_mismatch",
                message: "this client does not know the encoding '\(assignment.training.encoding)'"
            )
        }
        var instructions = instructions
        instructions.gradientCorrection = controls?.correction
        let start = ContinuousClock.now
        let isGradient = assignment.training.submit == "gradient"
        let result =
            isGradient
            ? try trainer.gradient(model: model, instructions: instructions)
            : try trainer.train(model: model, instructions: instructions)
        let seconds = (ContinuousClock.now - start) / .seconds(1)
        let expected = controls == nil ? assignment.updateTensors ?? assignment.tensors : assignment.tensors
        guard result.delta.layout == expected else {
            throw ClientError(code: "model_mismatch", message: "the trainer returned other tensors than the model's")
        }
        var update =
            try controls?.update(result, learningRate: assignment.training.local.learningRate) ?? result.delta
        if assignment.training.submit == "weights" { VectorKernels.axpy(1, model.values, into: &update.values) }
        guard VectorKernels.allFinite(update.values) else { throw LocalTrainingError.numeric }
        var metadata = Self.metadata(result, assignment, seconds: seconds)
        let protection = try UpdateProtection(assignment.privacy)
        if let isWithin = try protection?.clip(&update), assignment.privacy.isAdaptive {
            metadata[UpdateMetadata.withinNorm] = isWithin ? "1" : "0"
        }
        control = controls.map {
            SafetensorsWriter.encode($0.next(after: update, layout: model.layout))
        }
        try protection?.addLocalNoise(&update)
        let bound = Float(assignment.valueBound ?? .infinity)
        if assignment.privacy.mode == "local" {
            // Noise has no bound, and cutting what is private already costs nothing.
            for index in update.values.indices { update.values[index] = max(-bound, min(bound, update.values[index])) }
        }
        // After clipping and noise: encoding what is private already costs nothing, and the server clips again.
        let encoder = UpdateEncoder(
            encoding,
            metadata: metadata,
            seed: UInt64.random(in: 0...UInt64.max),
            valueBound: min(bound, .greatestFiniteMagnitude)
        )
        var kept = feedback
        var hash = SequentialDigest()
        try encoder.write(update, to: path, residual: &kept.residual) { hash.update($0, at: $1) }
        digest = try hash.digest ?? FileDigest.sha256(path)
        self.feedback = encoding == .topk ? kept : nil
    }

    private static func metadata(
        _ result: TrainingResult,
        _ assignment: AssignmentBody,
        seconds: Double
    ) -> [String: String] {
        var metadata = ["kind": assignment.training.submit, "base": assignment.model.sha256, "num_examples": "1"]
        if assignment.privacy.mode == "none" {
            metadata["num_examples"] = String(max(1, result.exampleCount))
        } else if let cap = assignment.exampleCap, assignment.privacy.mode == "central" {
            // A count is a release too: it leaves where it weighs the update, and no further than it counts.
            metadata["num_examples"] = String(max(1, min(cap, result.exampleCount)))
        }
        guard assignment.privacy.mode == "none", assignment.kind == "train" else { return metadata }
        // Sums over private text are a release of their own: they leave only where nothing is promised.
        for (name, value) in result.metrics.sums { metadata[name] = String(value) }
        if result.stepCount > 0 {
            metadata["steps"] = String(result.stepCount)
            metadata["seconds"] = String(seconds)
        }
        return metadata
    }
}
