package import Tensors

/// How SCAFFOLD's two vectors travel as one update: the model's tensors, and beside each one its control variate.
///
/// One file means one clip, one noise and one acceptance for both. Source: Karimireddy et al. 2020, arXiv:1910.06378.
package enum ControlVariates {
    /// Precedes the name of the model's tensor.
    package static let prefix = "scaffold_control/"

    /// The name of a model's tensor that could be taken for a control variate; `nil` where there is none.
    package static func ambiguousName(in layout: ParameterLayout) -> String? {
        layout.tensors.first { $0.name.hasPrefix(prefix) }?.name
    }

    /// The model's tensors and their control variates, whose names no tensor of the model may begin with: see
    /// ``ambiguousName(in:)``.
    package static func jointLayout(_ layout: ParameterLayout) -> ParameterLayout {
        ParameterLayout(
            layout.tensors + layout.tensors.map { TensorSpecification(name: prefix + $0.name, shape: $0.shape) }
        )
    }

    /// The two parts of a joint vector, each in the order of the model's layout.
    package static func split<Value>(
        _ values: [Value],
        modelLayout layout: ParameterLayout
    ) -> (model: [Value], control: [Value]) {
        let joint = jointLayout(layout)
        precondition(values.count == joint.parameterCount, "values do not fill the joint layout")
        var (model, control): ([Value], [Value]) = ([], [])
        for (index, tensor) in joint.tensors.enumerated() {
            let part = values[joint.offsets[index]..<joint.offsets[index + 1]]
            // The prefix is common to all control variates, so both parts keep the model's order.
            if tensor.name.hasPrefix(prefix) { control += part } else { model += part }
        }
        return (model, control)
    }

    /// One vector of both.
    package static func join(model: ParameterVector, control: [Float]) -> ParameterVector {
        let joint = jointLayout(model.layout)
        let controls = ParameterVector(layout: model.layout, values: control)
        var values: [Float] = []
        values.reserveCapacity(joint.parameterCount)
        for tensor in joint.tensors {
            let part =
                tensor.name.hasPrefix(prefix)
                ? controls[String(tensor.name.dropFirst(prefix.count))] : model[tensor.name]
            if let part { values += part }
        }
        return ParameterVector(layout: joint, values: values)
    }
}
