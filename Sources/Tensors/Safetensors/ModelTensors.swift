/// What a run's models are made of, said the same by the server that takes a first one and by the check before.
package enum ModelTensors {
    /// Why a tensor cannot be one of a run's models, and what to do; `nil` for one that can.
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
