import DifferentialPrivacy
import Foundation
import Tensors
import TrainerInterface
import WireFormat

/// The device's half of SCAFFOLD: steps are corrected by c − cᵢ, and what changed in cᵢ is sent beside the update.
///
/// After K steps of SGD at rate η from x to y, `cᵢ⁺ = cᵢ − c + (x − y) / (K η)` (option II). Source: Karimireddy et al. 2020,
/// arXiv:1910.06378, Algorithm 1. Delta and change of cᵢ are one vector: clipped and noised together, as both are releases.
/// The device keeps what it has sent, before noise, so that the server's c stays the mean of the devices' cᵢ.
struct ControlVariateStep: Sendable {
    /// c, the server's.
    let server: [Float]
    /// cᵢ, this device's.
    let own: [Float]

    /// What is added to each step's gradient: c − cᵢ with the sign of a gradient step, `y ← y − η (g − cᵢ + c)`.
    var correction: [Float] { VectorKernels.difference(server, own) }

    /// The joint update, before clipping.
    ///
    /// - Throws: ``LocalTrainingError/numeric`` when no step was taken, so that the mean gradient is not known.
    func update(_ result: TrainingResult, learningRate: Double) throws -> ParameterVector {
        guard result.stepCount > 0 else { throw LocalTrainingError.numeric }
        let scale = 1 / (Double(result.stepCount) * learningRate)
        var change = [Float](repeating: 0, count: own.count)
        for index in change.indices {
            change[index] = Float(-Double(server[index]) - Double(result.delta.values[index]) * scale)
        }
        return ControlVariates.join(model: result.delta, control: change)
    }

    /// cᵢ⁺ from the joint update as it was clipped.
    func next(after update: ParameterVector, layout: ParameterLayout) -> ParameterVector {
        var values = own
        VectorKernels.axpy(1, ControlVariates.split(update.values, modelLayout: layout).control, into: &values)
        return ParameterVector(layout: layout, values: values)
    }
}
