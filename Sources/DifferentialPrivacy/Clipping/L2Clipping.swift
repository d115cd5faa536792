import Tensors

/// Flat L2 clipping: `v · min(1, C / ‖v‖₂)`, the norm over all tensors together.
///
/// Source: McMahan et al. 2018, arXiv:1710.06963.
public enum L2Clipping {
    /// Clips in place.
    ///
    /// - Parameters:
    ///   - values: The update; every value finite.
    ///   - norm: The bound C, in parameter units, more than 0.
    /// - Returns: The norm before clipping. It is data of the client and must not leave the device.
    /// - Throws: ``PrivacyError/notFinite(index:)``.
    @discardableResult
    public static func clip(_ values: inout [Float], norm: Double) throws(PrivacyError) -> Double {
        let length = VectorKernels.squaredNorm(values).squareRoot()
        guard length.isFinite else {
            throw .notFinite(index: values.firstIndex { !$0.isFinite } ?? 0)
        }
        if length > norm {
            VectorKernels.scale(&values, by: Float(norm / length))
        }
        return length
    }
}
