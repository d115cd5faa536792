extension ParameterLayout {
    /// What is wrong with tensors that should be these: the first that is missing, of another shape, or surplus.
    ///
    /// - Parameters:
    ///   - actual: The tensors that are there.
    ///   - what: What they are called in the sentence, such as `the model`.
    /// - Returns: A sentence; `nil` where both are the same.
    package func mismatch(of actual: ParameterLayout, _ what: String) -> String? {
        guard actual != self else { return nil }
        let shapes = Dictionary(actual.tensors.map { ($0.name, $0.shape) }) { first, _ in first }
        for tensor in tensors {
            guard let shape = shapes[tensor.name] else { return "\(what) lacks tensor '\(tensor.name)'" }
            guard shape == tensor.shape else {
                return "\(what)'s tensor '\(tensor.name)' has shape \(shape), not \(tensor.shape)"
            }
        }
        let names = Set(tensors.map(\.name))
        let surplus = actual.tensors.first { !names.contains($0.name) }?.name ?? ""
        return "\(what) has tensor '\(surplus)', which is not one of its own"
    }
}
