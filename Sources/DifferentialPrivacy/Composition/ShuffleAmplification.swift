import Foundation

/// Amplification of local reports by an anonymous shuffler.
///
/// Source: Feldman, McMillan and Talwar 2021, arXiv:2012.12803, in the closed form of the authors' code. A coordinator
/// that authenticates clients and sees their reports is not a shuffler: this is for planning, and nothing here is charged by it.
public enum ShuffleAmplification {
    /// ε of n shuffled ε₀-local reports at δ.
    ///
    /// - Returns: ε₀ itself, with `isValid` false, outside the theorem's range.
    public static func epsilon(localEpsilon e0: Double, count n: Int, delta: Double) -> (epsilon: Double, isValid: Bool)
    {
        let count = Double(n)
        guard e0 <= log(count / (16 * log(4 / delta))) else { return (e0, false) }
        let a = 8 * (exp(e0) * log(4 / delta) / count).squareRoot()
        let c = 8 * exp(e0) / count
        let shrink = -expm1(-e0) / (1 + exp(-e0 - log1p(a + c)))
        return (min(e0, log1p(shrink * (a + c))), true)
    }
}
