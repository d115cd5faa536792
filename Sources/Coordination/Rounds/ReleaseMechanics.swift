import Aggregation
import DifferentialPrivacy

/// The three places where a noised mean can be wrong: the bound, the noise and the denominator.
///
/// There is one right form, and no configuration reaches another; tests build broken ones, because an audit that finds
/// nothing wrong with the right form proves little unless it finds the wrong ones.
struct ReleaseMechanics: Sendable {
    /// How values are rounded and bounded on the noise's grid.
    var sumGrid: @Sendable (NoiseGrid, [BoundedSum.Part]) -> BoundedSum.Grid = { grid, parts in
        .init(
            parts: parts,
            measure: grid.distribution.norm == .l1 ? .magnitudes : .squares,
            quantizeBlock: { grid.quantize($0, scale: $1, into: $2) }
        )
    }
    /// Adds the noise of one release in the place of the attempt's own, which is made of its ``NoiseKey``.
    var addNoise: (@Sendable (inout [Int64], NoiseGrid) throws -> Void)?
    /// What sums are divided by: the planned number of updates, never the one that came.
    var divisor: @Sendable (_ goal: Int, _ updates: [SpooledUpdate]) -> Double = { goal, _ in Double(goal) }
}
