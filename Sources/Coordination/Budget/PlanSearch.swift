import DifferentialPrivacy

/// How many rounds of a plan a budget admits.
enum PlanSearch {
    /// The largest number of rounds that fits; what fits fits with fewer.
    static func largest(
        upTo limit: Int,
        _ admits: (_ rounds: Int) throws(PrivacyError) -> Bool
    ) throws(PrivacyError) -> Int {
        guard limit > 0 else { return 0 }
        // The whole plan is what was wanted.
        if try admits(limit) { return limit }
        var (good, bad) = (0, limit)
        while bad - good > 1 {
            let middle = (good + bad) / 2
            if try admits(middle) { good = middle } else { bad = middle }
        }
        return good
    }

    /// The same, by few compositions of loss distributions.
    ///
    /// A coarse grid never admits too many. What the exact one admits beyond are some hundredths more, looked for in growing steps; where
    /// that takes too much arithmetic the coarse answer stays.
    ///
    /// - Parameters:
    ///   - limit: Rounds that are wanted.
    ///   - allowance: Cells that the coarse answer may take, and what is looked for beyond it once more; `nil`: all, and a quarter of all.
    ///   - admits: Whether so many fit by a grid.
    /// - Returns: The largest number that fits.
    /// - Throws: ``PrivacyError``, where even the coarse grid takes too much.
    static func rounds(
        upTo limit: Int,
        allowance: Int? = nil,
        _ admits: (_ rounds: Int, _ grid: LossDistributionAccountant.Grid) throws(PrivacyError) -> Bool
    ) throws(PrivacyError) -> Int {
        let good = try LossAllowance.limited(to: allowance ?? LossAllowance.standard) { () throws(PrivacyError) in
            try largest(upTo: limit) { rounds throws(PrivacyError) in try admits(rounds, .coarse) }
        }
        do {
            return try LossAllowance.limited(to: allowance ?? LossAllowance.standard / 4) { () throws(PrivacyError) in
                var (good, stride, over) = (good, 1, limit + 1)
                while good + stride < over {
                    guard try admits(good + stride, .standard) else {
                        over = good + stride
                        break
                    }
                    good += stride
                    stride *= 2
                }
                while over - good > 1 {
                    let middle = (good + over) / 2
                    if try admits(middle, .standard) { good = middle } else { over = middle }
                }
                return good
            }
        } catch {
            guard error.isTooCostly else { throw error }
            return good
        }
    }
}
