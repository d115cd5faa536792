/// Scales updates with a norm over a bound down to the bound, so that no single client can move the model far.
///
/// Source: Sun et al. 2019, arXiv:1911.07963, section 4 ("norm thresholding"). This is not clipping for privacy: no noise is added.
public enum NormBounding {
    /// The factor of each row: `min(1, bound / norm)`.
    ///
    /// - Parameters:
    ///   - norms: Shape `[count]`, from ``UpdateColumns/norms()``.
    ///   - bound: In parameter units, more than 0.
    /// - Returns: Shape `[count]`, from 0 to 1.
    public static func factors(norms: [Double], bound: Double) -> [Double] {
        norms.map { $0 > bound ? bound / $0 : 1 }
    }
}
