import DifferentialPrivacy
import Foundation
import MartletTransport
import SecureAggregation
import Tensors
import TrainerInterface
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
    /// Why a private update is zeros, for the device's owner; `nil` where the data gave something.
    var shortfall: String?

    /// Does one assignment's work and writes the update as a safetensors file, which is on the disk then.
    ///
    /// `beforeNoise` is called once, when the update is clipped and nothing was drawn: what it throws ends the work. With a helper's
    /// session the file is the masked update, and nothing is in it or beside it but that.
    ///
    /// With privacy nothing that happens after the data were opened is an error: see ``DataAnswer``.
    ///
    /// - Throws: ``LocalTrainingError``, ``PrivacyError``, `ClientError`, or the trainer's own error.
    init(
        _ assignment: Assignment,
        model: ParameterVector,
        trainer: any LocalTrainer,
        instructions: TrainingInstructions,
        controls: ControlVariateStep?,
        feedback: ErrorFeedback,
        earlierTries: Int = 0,
        path: String,
        session: HelperSession? = nil,
        failpoint: () throws -> Void = {},
        beforeNoise: () throws -> Void
    ) async throws {
        let protection = try ClippingAndNoise(assignment.privacy)
        let start = ContinuousClock.now
        let answer = try await Self.train(assignment, model, trainer, instructions, controls, earlierTries)
        shortfall = answer.shortfall
        let seconds = (ContinuousClock.now - start) / .seconds(1)
        var update = answer.value?.update ?? assignment.nothing
        var metadata = Self.metadata(answer.value?.result, assignment, seconds: seconds)
        // Clip.
        if let isWithin = try protection?.clip(&update), assignment.privacy.isAdaptive,
            assignment.privacy.mode == .central
        {
            // A device whose data gave nothing throws a fair coin, which moves the count by 0 in the mean.
            let bit = answer.value == nil ? Bool.random() : isWithin
            metadata[UpdateMetadata.withinNorm] = bit ? "1" : "0"
        }
        // Zeros leave it as it was; it is kept all the same, so that the next requests are those of any other update.
        control = controls.map { SafetensorsWriter.encode($0.next(after: update, layout: model.layout)) }
        // Noise.
        try beforeNoise()
        try protection?.addLocalNoise(&update)
        let bound = Float(assignment.valueBound ?? .infinity)
        if assignment.isPrivate {
            // Noise has no bound, and cutting what is private already costs nothing. Nor has a clipped update one that is
            // under the run's: the server would refuse it, and tell so.
            for index in update.values.indices { update.values[index] = max(-bound, min(bound, update.values[index])) }
        }
        if let session {
            digest = try session.writeMasked(try session.grid.encode(update.values), to: path, failpoint: failpoint)
            return
        }
        // Encode: after clipping and noise, since encoding what is private already costs nothing, and the server clips again.
        let encoder = UpdateEncoder(
            assignment.training.encoding,
            metadata: metadata,
            seed: UInt64.random(in: 0...UInt64.max),
            valueBound: min(bound, .greatestFiniteMagnitude),
            hasFixedLength: assignment.isPrivate
        )
        var kept = feedback
        // What earlier updates left out is data, and waits for one that has some.
        if answer.value == nil { kept.residual = [] }
        var hash = SequentialDigest()
        try encoder.write(update, to: path, residual: &kept.residual) { hash.update($0, at: $1) }
        if answer.value == nil { kept = feedback }
        digest = try hash.digest ?? FileDigest.sha256(path)
        self.feedback = assignment.training.encoding == .topk ? kept : nil
    }

    /// Lets the trainer work, and makes of its result the update that the run asks for: checked, and not clipped yet.
    private static func train(
        _ assignment: Assignment,
        _ model: ParameterVector,
        _ trainer: any LocalTrainer,
        _ instructions: TrainingInstructions,
        _ controls: ControlVariateStep?,
        _ earlierTries: Int
    ) async throws -> DataAnswer<(update: ParameterVector, result: TrainingResult)> {
        var told = instructions
        told.gradientCorrection = controls?.correction
        let instructions = told
        let isGradient = assignment.training.submit == .gradient
        return try await DataAnswer(
            isGradient ? .gradient : .train,
            of: assignment,
            by: trainer,
            model: model,
            instructions: instructions,
            earlierTries: earlierTries
        ) {
            let result = try await TrainerFailure.catching {
                isGradient
                    ? try await trainer.gradient(model: model, instructions: instructions)
                    : try await trainer.train(model: model, instructions: instructions)
            }
            let expected = controls == nil ? assignment.updateTensors ?? assignment.tensors : assignment.tensors
            guard result.delta.layout == expected else {
                throw ClientError(
                    mismatch: "the trainer returned other tensors than the model's"
                )
            }
            var update =
                try controls?.update(result, learningRate: assignment.training.local.learningRate) ?? result.delta
            if assignment.training.submit == .weights { VectorKernels.axpy(1, model.values, into: &update.values) }
            guard VectorKernels.allFinite(update.values) else { throw LocalTrainingError.numeric }
            let stands = assignment.weightUnit == .tokens ? result.metrics.tokens : result.exampleCount
            guard stands > 0 || assignment.weightUnit == nil else {
                let unit = assignment.weightUnit?.rawValue ?? ""
                throw ClientError(
                    mismatch: "the run weighs updates by \(unit), and the trainer counted none"
                )
            }
            return (update: update, result: result)
        }
    }

    /// What goes beside the tensors; without a result, of data that gave nothing.
    private static func metadata(
        _ result: TrainingResult?,
        _ assignment: Assignment,
        seconds: Double
    ) -> [String: String] {
        let unit = assignment.weightUnit ?? .examples
        let count = UpdateMetadata.count(unit)
        let counted: Int? =
            switch unit {
            case .examples: result?.exampleCount
            case .tokens: result?.metrics.tokens
            }
        let stands = counted ?? 0
        var metadata = [
            UpdateMetadata.kind: assignment.training.submit.rawValue, UpdateMetadata.base: assignment.model.sha256.text,
            count: "1",
        ]
        if !assignment.isPrivate {
            metadata[count] = String(max(1, stands > 0 ? stands : result?.metrics.tokens ?? 0))
        } else if let cap = assignment.exampleCap, assignment.privacy.mode == .central {
            // A count is a release too: it leaves where it weighs the update, and no further than it counts.
            metadata[count] = String(result == nil ? 0 : max(1, min(cap, stands)))
        }
        guard !assignment.isPrivate, assignment.kind == .train, let result else { return metadata }
        // Sums over private text are a release of their own: they leave only where nothing is promised.
        for (name, value) in result.metrics.sums { metadata[name] = String(value) }
        if result.stepCount > 0 {
            metadata["steps"] = String(result.stepCount)
            metadata["seconds"] = String(seconds)
        }
        return metadata
    }
}
