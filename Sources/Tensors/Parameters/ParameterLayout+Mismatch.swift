extension ParameterLayout {
    /// The first difference of other tensors from this layout: one that is missing, has another shape, or is surplus.
    ///
    /// - Parameters:
    ///   - actual: The tensors to compare.
    ///   - what: What they are called in the sentence, such as `the model`.
    /// - Returns: A sentence for people; `nil` if the layouts are equal.
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
        return "\(what) has tensor '\(surplus)', which is not expected"
    }
}
