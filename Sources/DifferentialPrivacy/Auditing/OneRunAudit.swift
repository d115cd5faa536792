import Foundation

/// A lower bound on ε from guesses about which canaries were in one run.
///
/// Each of m canaries is included by a fair coin; r guesses are made, v of them right. Source: Steinke, Nasr and
/// Jagielski 2023, arXiv:2305.08846, Theorem 5.2. It can falsify a claim, never prove one.
public struct OneRunAudit: Equatable, Sendable {
    /// m, the number of canaries.
    public let canaryCount: Int
    /// r, the number of guesses.
    public let guessCount: Int
    /// v, the number of right guesses.
    public let correctCount: Int

    /// - Precondition: `0 ≤ correctCount ≤ guessCount ≤ canaryCount`.
    public init(canaryCount: Int, guessCount: Int, correctCount: Int) {
        precondition((0...guessCount).contains(correctCount) && guessCount <= canaryCount, "counts do not fit")
        self.canaryCount = canaryCount
        self.guessCount = guessCount
        self.correctCount = correctCount
    }

    /// Scores canaries and guesses: "in" for the highest half of the guesses, "out" for the lowest.
    ///
    /// - Parameters:
    ///   - scores: For each canary, its inner product with the released output.
    ///   - included: For each canary, whether it was included.
    ///   - guessCount: r, even.
    public init(scores: [Double], included: [Bool], guessCount: Int) {
        precondition(scores.count == included.count && guessCount <= scores.count, "counts do not fit")
        let order = scores.indices.sorted { scores[$0] > scores[$1] }
        let top = order.prefix(guessCount / 2).filter { included[$0] }.count
        let bottom = order.suffix(guessCount / 2).filter { !included[$0] }.count
        self.init(canaryCount: scores.count, guessCount: guessCount / 2 * 2, correctCount: top + bottom)
    }

    /// The largest probability of as many right guesses under any (ε, δ)-DP mechanism.
    public func pValue(epsilon: Double, delta: Double) -> Double {
        let p = 1 / (1 + exp(-epsilon))
        // tails[i] = Pr[Bin(r, p) ≥ v − i]
        var tails = [SpecialFunctions.binomialUpperTail(count: guessCount, probability: p, atLeast: correctCount)]
        for i in stride(from: 1, through: correctCount, by: 1) {
            let k = Double(correctCount - i)
            let term = exp(
                SpecialFunctions.logBinomial(Double(guessCount), k) + k * log(p)
                    + (Double(guessCount) - k) * log1p(-p)
            )
            tails.append(min(1, tails[i - 1] + term))
        }
        var alpha = 0.0
        for i in stride(from: 1, through: correctCount, by: 1) { alpha = max(alpha, (tails[i] - tails[0]) / Double(i)) }
        return min(1, tails[0] + 2 * Double(canaryCount) * delta * alpha)
    }

    /// The largest ε that the guesses refute at a confidence; 0 if they refute none.
    public func epsilonLowerBound(delta: Double, confidence: Double = 0.95) -> Double {
        let level = 1 - confidence
        guard pValue(epsilon: 0, delta: delta) < level else { return 0 }
        var (lower, upper) = (0.0, 1.0)
        while pValue(epsilon: upper, delta: delta) < level && upper < 64 { upper *= 2 }
        for _ in 0..<100 where upper - lower > 1e-12 {
            let middle = (lower + upper) / 2
            if pValue(epsilon: middle, delta: delta) < level { lower = middle } else { upper = middle }
        }
        return lower
    }
}
