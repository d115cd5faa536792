import Foundation

/// A privacy loss distribution on the grid {ih}, never more optimistic than the true one.
///
/// Connect-the-dots (Doroshenko et al. 2022, arXiv:2207.04380): the mass of every cell between two grid points is split
/// over the two so that its P-mass and its Q-mass (the mean of e^{−L}) both stay. The hockey-stick curve is then met at
/// every grid point and bounded from above between them. The split is computed from the cell's two masses and not from
/// differences of the curve, so each cell keeps a relative, not an absolute, precision.
struct DiscreteLoss: Sendable {
    /// The grid's step h.
    let step: Double
    /// The grid index of `masses[0]`.
    private(set) var firstIndex: Int
    /// P-masses.
    private(set) var masses: [Double]
    /// P-mass at infinite loss.
    private(set) var infinityMass: Double

    /// One direction of a mechanism's pair of distributions.
    enum Direction: Sendable { case remove, add }

    /// Discretises an event; `nil` if its loss distribution is not known here.
    init?(_ event: PrivacyEvent, direction: Direction, step: Double) {
        switch event {
        case .poissonGaussian(let q, let z): self = Self.sampledGaussian(q, z, direction, step)
        case .laplace(let scale): self = Self.laplace(scale, step)
        case .approximate(let epsilon, let delta): self = Self.randomizedResponse(epsilon, delta, step)
        default:
            guard let inverseSquare = event.gaussianInverseSquare else { return nil }
            self = Self.sampledGaussian(1, (1 / inverseSquare).squareRoot(), direction, step)
        }
    }

    private init(step: Double, range: ClosedRange<Int>) {
        self.step = step
        firstIndex = range.lowerBound
        masses = [Double](repeating: 0, count: range.count)
        infinityMass = 0
    }

    // MARK: - Mechanisms

    /// Standard deviations beyond which a Gaussian has less than 2·10⁻²⁵ of its mass.
    private static let reach = 10.35

    private static func sampledGaussian(_ q: Double, _ z: Double, _ direction: Direction, _ h: Double) -> DiscreteLoss {
        func loss(_ x: Double) -> Double {
            let exponent = (2 * x - 1) / (2 * z * z)
            if q == 1 { return exponent }
            return exponent > 30 ? exponent + log(q) + log1p((1 - q) / q * exp(-exponent)) : log1p(q * expm1(exponent))
        }
        /// The x with loss(x) = value: minus infinity below the loss's range.
        func point(_ value: Double) -> Double {
            if q == 1 { return z * z * value + 0.5 }
            let shifted = value > 30 ? value : log((expm1(value) + q) / q)
            guard value <= 30 else { return z * z * (value - log(q) + log1p(-(1 - q) * exp(-value))) + 0.5 }
            return shifted.isNaN ? -.infinity : z * z * shifted + 0.5
        }
        let (lowX, highX) = (-reach * z, 1 + reach * z)
        let low = Int((loss(lowX) / h).rounded(.down))
        let high = Int((loss(highX) / h).rounded(.up))
        // Tails of N(0, 1) at x/z and (x − 1)/z, below where x is under 1/2 and above elsewhere.
        let root = z * 2.0.squareRoot()
        func below(_ x: Double) -> (Double, Double) { (erfc(-x / root) / 2, erfc(-(x - 1) / root) / 2) }
        func above(_ x: Double) -> (Double, Double) { (erfc(x / root) / 2, erfc((x - 1) / root) / 2) }
        let isRemove = direction == .remove
        var result = DiscreteLoss(step: h, range: isRemove ? low...high : (-high)...(-low))
        /// Adds the mass between two x whose loss, in the remove direction, is in cell (index − 1, index].
        func place(_ index: Int, _ base: Double, _ shifted: Double) {
            let mixture = (1 - q) * base + q * shifted
            if isRemove {
                result.split(index - 1, mixture, base)
            } else {
                result.split(-index, base, mixture)
            }
        }
        var lastX = point(Double(low) * h)
        var lastTail = below(min(lastX, 0.5))
        var isLower = lastX < 0.5
        if !isLower { lastTail = above(lastX) }
        // The mass below the grid goes to the lowest point in the remove direction, and to infinity in the other.
        let under = below(lastX)
        let underMixture = (1 - q) * under.0 + q * under.1
        if isRemove { result.masses[0] += underMixture } else { result.infinityMass += under.0 }
        for index in stride(from: low + 1, through: high, by: 1) {
            let x = point(Double(index) * h)
            if isLower && x < 0.5 {
                let tail = below(x)
                place(index, tail.0 - lastTail.0, tail.1 - lastTail.1)
                lastTail = tail
            } else {
                let tail = above(x)
                if isLower {
                    place(index, 1 - tail.0 - lastTail.0, 1 - tail.1 - lastTail.1)
                    isLower = false
                } else {
                    place(index, lastTail.0 - tail.0, lastTail.1 - tail.1)
                }
                lastTail = tail
            }
            lastX = x
        }
        let over = above(lastX)
        if isRemove {
            result.infinityMass += (1 - q) * over.0 + q * over.1
        } else {
            result.masses[0] += over.0
        }
        return result
    }

    private static func laplace(_ b: Double, _ h: Double) -> DiscreteLoss {
        let top = 1 / b
        let high = Int((top / h).rounded(.up))
        var result = DiscreteLoss(step: h, range: (-high)...high)
        result.atom(loss: top, mass: 0.5)
        result.atom(loss: -top, mass: 0.5 * exp(-top))
        // Between, x in (0, 1) has loss (1 − 2x)/b.
        for index in (-high + 1)...high {
            let upper = min(1, max(0, (1 - b * Double(index - 1) * h) / 2))
            let lower = min(1, max(0, (1 - b * Double(index) * h) / 2))
            guard upper > lower else { continue }
            let p = 0.5 * exp(-lower / b) * -expm1(-(upper - lower) / b)
            let q = 0.5 * exp(-(1 - upper) / b) * -expm1(-(upper - lower) / b)
            result.split(index - 1, p, q)
        }
        return result
    }

    private static func randomizedResponse(_ epsilon: Double, _ delta: Double, _ h: Double) -> DiscreteLoss {
        let high = max(1, Int((epsilon / h).rounded(.up)))
        var result = DiscreteLoss(step: h, range: (-high)...high)
        let up = 1 / (1 + exp(-epsilon))
        result.atom(loss: epsilon, mass: (1 - delta) * up)
        result.atom(loss: -epsilon, mass: (1 - delta) * (1 - up))
        result.infinityMass = delta
        return result
    }

    // MARK: - Splitting

    /// Splits a cell's mass over the grid points `index` and `index + 1`.
    private mutating func split(_ index: Int, _ p: Double, _ q: Double) {
        guard p > 0 else { return }
        let upper = min(p, max(0, (p - q * exp(Double(index) * step)) / -expm1(-step)))
        masses[index - firstIndex] += p - upper
        masses[index + 1 - firstIndex] += upper
    }

    private mutating func atom(loss: Double, mass: Double) {
        let last = firstIndex + masses.count - 1
        let index = max(firstIndex, min(last - 1, Int((loss / step).rounded(.down))))
        split(index, mass, mass * exp(-loss))
    }
}
