public import Tensors

/// Per-layer clipping: every tensor has a bound of its own, and their squares sum to C².
///
/// Source: McMahan et al. 2018, arXiv:1812.06210. The sensitivity is C.
public enum LayerClipping {
    /// The share of C² of each tensor, in the layout's order: equal, so that every bound is `C/√L`.
    public static func shares(of layout: ParameterLayout) -> [Double] {
        let count = max(1, layout.tensors.count)
        return [Double](repeating: 1 / Double(count), count: layout.tensors.count)
    }

    /// Clips every tensor in place.
    ///
    /// - Parameters:
    ///   - values: The update in the layout's order, every value finite.
    ///   - layout: The model's layout.
    ///   - norm: C of all tensors together.
    /// - Throws: ``PrivacyError/notFinite(index:)``.
    public static func clip(_ values: inout [Float], layout: ParameterLayout, norm: Double) throws(PrivacyError) {
        precondition(values.count == layout.parameterCount, "the values must have the layout's count")
        for (tensor, share) in zip(layout.tensors, shares(of: layout)) {
            guard let range = layout.range(of: tensor.name) else { continue }
            var part = Array(values[range])
            do {
                try L2Clipping.clip(&part, norm: norm * share.squareRoot())
            } catch {
                if case .notFinite(let index) = error { throw .notFinite(index: range.lowerBound + index) }
                throw error
            }
            values.replaceSubrange(range, with: part)
        }
    }
}

/// L1 clipping: `v · min(1, C₁ / ‖v‖₁)`, for Laplace noise.
public enum L1Clipping {
    /// Clips in place.
    ///
    /// - Throws: ``PrivacyError/notFinite(index:)``.
    public static func clip(_ values: inout [Float], norm: Double) throws(PrivacyError) {
        if let index = values.firstIndex(where: { !$0.isFinite }) { throw .notFinite(index: index) }
        let length = values.reduce(0.0) { $0 + Double(abs($1)) }
        if length > norm { VectorKernels.scale(&values, by: Float(norm / length)) }
    }
}
