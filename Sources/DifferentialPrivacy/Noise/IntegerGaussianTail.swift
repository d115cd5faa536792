/// Tail probabilities of ``IntegerGaussianSampler``, computed from the table that it draws from and not from the Gaussian that it
/// approximates.
///
/// `x = near + 2048 far` with two independent sums of the same kind, `b₀ + 48 b₁`. The distribution of one sum is a convolution of the
/// table with itself. All terms are positive, so tails keep their relative precision.
enum IntegerGaussianTail {
    /// `Pr[x ≥ least]`, too large by a billionth of it and never too small.
    static func upper(_ least: Int64) -> Double {
        let reach = Int64(part.reach)
        guard least > -reach * 2049 else { return 1 }
        guard least <= reach * 2049 else { return 0 }
        // From this value of `far` on, every `near` gives x of `least` or more.
        let certain = quotient(least + reach, 2048)
        var sum = part.upper(certain)
        for far in max(-reach, quotient(least - reach, 2048))..<max(-reach, certain) where far <= reach {
            sum += part.probability(far) * part.upper(least - 2048 * far)
        }
        return min(1, sum * (1 + 1e-9))
    }

    /// The quotient, rounded up.
    private static func quotient(_ value: Int64, _ divisor: Int64) -> Int64 {
        let (quotient, remainder) = value.quotientAndRemainder(dividingBy: divisor)
        return remainder > 0 ? quotient + 1 : quotient
    }

    /// `b₀ + 48 b₁`.
    private struct Part {
        let reach: Int
        private let probabilities: [Double]
        /// `Pr[≥ k]` at `k + reach`.
        private let tails: [Double]

        init() {
            let table = DiscreteGaussianTable.halves.map { UInt128($0.high) << 64 | UInt128($0.low) }
            // Magnitudes 0 … table.count. The sign is a fair coin, which has no effect on zero.
            let whole = UInt128(1) << 127
            var base = [Double](repeating: 0, count: 2 * table.count + 1)
            for magnitude in 0...table.count {
                let upTo = magnitude < table.count ? table[magnitude] : whole
                let share = Double(upTo - (magnitude > 0 ? table[magnitude - 1] : 0)) * 0x1p-127
                if magnitude == 0 {
                    base[table.count] = share
                } else {
                    base[table.count - magnitude] = share / 2
                    base[table.count + magnitude] = share / 2
                }
            }
            let reach = 49 * table.count
            var sums = [Double](repeating: 0, count: 2 * reach + 1)
            sums.withUnsafeMutableBufferPointer { sums in
                base.withUnsafeBufferPointer { base in
                    for outer in 0..<base.count where base[outer] > 0 {
                        let factor = base[outer]
                        let start = 48 * outer
                        for inner in 0..<base.count { sums[start + inner] += factor * base[inner] }
                    }
                }
            }
            var tails = sums
            for index in stride(from: tails.count - 2, through: 0, by: -1) { tails[index] += tails[index + 1] }
            (self.reach, probabilities, self.tails) = (reach, sums, tails)
        }

        func probability(_ value: Int64) -> Double { probabilities[Int(value) + reach] }

        func upper(_ least: Int64) -> Double {
            if least <= -Int64(reach) { return 1 }
            return least > Int64(reach) ? 0 : tails[Int(least) + reach]
        }
    }

    private static let part = Part()
}
