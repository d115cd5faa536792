/// Which tensors a run's models may have: one sentence for the server that accepts a first model and for the check of a trainer.
package enum ModelTensors {
    /// Why a run's model cannot hold a tensor of this dtype, and what to do about it; `nil` if it can.
    package static func refusal(of tensor: String, dataType: String) -> String? {
        guard dataType != TensorDataType.float32.rawValue else { return nil }
        return "tensor '\(tensor)' is \(dataType), and a run's models are F32: \(advice(dataType))"
    }

    private static func advice(_ dataType: String) -> String {
        dataType.hasPrefix("F") || dataType == TensorDataType.bfloat16.rawValue
            ? "cast it, as with {name: tensor.float() for name, tensor in model.state_dict().items()}"
            : "leave it out, and let the trainer restore it"
    }
}
