import Foundation

/// Numerical composition of privacy loss distributions: tight, an upper bound, for plans that are fixed beforehand.
///
/// The two directions of the neighbouring relation are composed separately, and the larger δ counts. Gaussian events, matrix
/// mechanisms included, are combined to one exactly; if there are no others, the answer is the closed form.
public struct LossDistributionAccountant: PrivacyAccountant {
    /// The accountant's name in documents.
    public static let name = "pld"
    /// Whether the bound holds for events that are chosen adaptively.
    public static let isFilter = false

    /// How fine the grid of losses is.
    public enum Grid: Sendable {
        /// From h = 1e-4, halved until the answer changes by less than this share of it; coarser if 2²¹ cells are too few.
        case refined(change: Double)
        /// Few cells, for searches that verify their answer. ε is a little too large: by a fraction of a per cent if it is large, and by a
        /// tenth if it is small and the rounds are very many.
        case coarse
        /// One step h.
        case fixed(Double)

        /// The grid of charges.
        public static let standard = Grid.refined(change: 0.005)
    }

    /// The least δ for which losses are composed by FFT.
    ///
    /// Below it the rounding of the transform matters.
    public static let smallestDelta = 1e-13

    private let grid: Grid
    private var counts: [PrivacyEvent: Int] = [:]
    private var order: [PrivacyEvent] = []
    private var inverseSquare = 0.0

    /// An accountant without events.
    public init() { self.init(grid: .standard) }

    /// An accountant without events, on another grid.
    public init(grid: Grid) { self.grid = grid }

    /// Adds `count` releases of an event.
    public mutating func add(_ event: PrivacyEvent, count: Int) throws(PrivacyError) {
        try event.validate()
        guard count > 0 else { return }
        if let share = event.gaussianInverseSquare {
            inverseSquare += Double(count) * share
            return
        }
        switch event {
        case .poissonGaussian, .laplace, .approximate: break
        default: throw unsupported(event)
        }
        if counts[event] == nil { order.append(event) }
        counts[event, default: 0] += count
    }

    /// The smallest ε that is proven at δ.
    ///
    /// - Throws: ``PrivacyError/invalidParameter(name:value:allowed:)`` unless δ is between 0 and 1, and ``smallestDelta`` or
    ///   more if events other than Gaussian ones were added; ``PrivacyError/tooCostly(cells:limit:)``.
    public func epsilon(delta: Double) throws(PrivacyError) -> Double {
        try Require.delta(delta)
        if let z = loneNoiseMultiplier { return GaussianAccountant.epsilon(delta: delta, noiseMultiplier: z) }
        guard !events.isEmpty else { return 0 }
        guard delta >= Self.smallestDelta else {
            throw .invalidParameter(
                name: "delta",
                value: delta,
                allowed:
                    "\(Self.smallestDelta) or more with loss distributions, because of their rounding: take a larger "
                    + "delta, or the accountant rdp"
            )
        }
        let epsilon = refine { step in self.epsilon(delta: delta, step: step) }
        try LossAllowance.check()
        return epsilon
    }

    /// The smallest δ that is proven at ε.
    ///
    /// - Throws: ``PrivacyError``.
    public func delta(epsilon: Double) throws(PrivacyError) -> Double {
        guard epsilon >= 0, epsilon.isFinite else {
            throw .invalidParameter(name: "epsilon", value: epsilon, allowed: "0 or more and finite")
        }
        if let z = loneNoiseMultiplier { return GaussianAccountant.delta(epsilon: epsilon, noiseMultiplier: z) }
        guard !events.isEmpty else { return 0 }
        let delta = refine { step in self.delta(epsilon: epsilon, step: step) }
        try LossAllowance.check()
        return delta
    }

    // MARK: - Grid

    private var events: [(PrivacyEvent, Int)] {
        var result = order.compactMap { event in counts[event].map { (event, $0) } }
        if inverseSquare > 0 { result.append((.gaussian(noiseMultiplier: (1 / inverseSquare).squareRoot()), 1)) }
        return result
    }

    private var loneNoiseMultiplier: Double? {
        order.isEmpty && inverseSquare > 0 ? (1 / inverseSquare).squareRoot() : nil
    }

    /// The most cells of a coarse grid: an answer takes a few hundredths of a second.
    private static let coarseCellLimit = 1 << 16

    private func refine(_ value: (Double) -> Double?) -> Double {
        guard case .coarse = grid else { return refined(value) }
        return ComposedLoss.$cellLimit.withValue(min(ComposedLoss.cellLimit, Self.coarseCellLimit)) { refined(value) }
    }

    /// Evaluates on finer and finer grids; a value of `nil` means that the grid has too many cells.
    private func refined(_ value: (Double) -> Double?) -> Double {
        let change: Double
        var step: Double
        switch grid {
        case .fixed(let h):
            (step, change) = (h, .infinity)
        case .coarse:
            (step, change) = (4e-4, 0.02)
        case .refined(let relative):
            // The first answer uses twice the default step. The default grid's answer is kept if it is close to that.
            (step, change) = (2e-4, relative)
        }
        var last = value(step)
        while last == nil && step < 1e9 && !LossAllowance.isSpent {
            step *= 2
            last = value(step)
        }
        guard var best = last, change < .infinity else { return last ?? .infinity }
        for _ in 0..<24 {
            step /= 2
            guard !LossAllowance.isSpent, let next = value(step) else { break }
            let isClose = abs(next - best) <= max(change * next, 1e-9)
            // Every grid gives an upper bound.
            best = min(best, next)
            if isClose { break }
        }
        return best
    }

    private func sums(step: Double) -> [ComposedLoss]? {
        let directions: [DiscreteLoss.Direction] = isSymmetric ? [.remove] : [.remove, .add]
        var result: [ComposedLoss] = []
        for direction in directions {
            var parts: [ComposedLoss.Part] = []
            for (event, count) in events {
                let cells = Self.cellEstimate(event, step: step)
                guard cells < Double(ComposedLoss.cellLimit) / 2, LossAllowance.admits(Int(max(0, cells))),
                    let loss = DiscreteLoss(event, direction: direction, step: step)
                else { return nil }
                parts.append(.init(loss, count: count))
            }
            result.append(ComposedLoss(parts: parts, step: step))
        }
        return result
    }

    /// Whether both directions have the same distribution of losses.
    private var isSymmetric: Bool {
        order.allSatisfy { if case .poissonGaussian = $0 { false } else { true } }
    }

    private static func cellEstimate(_ event: PrivacyEvent, step: Double) -> Double {
        switch event {
        case .laplace(let scale): 2 / scale / step
        case .approximate(let epsilon, _): 2 * epsilon / step
        case .poissonGaussian(let q, let z):
            (max(0, (2 * 10.35 * z + 1) / (2 * z * z) + log(q)) + min(1, q) + 1e-3) / step
        default: event.gaussianInverseSquare.map { 21 * $0.squareRoot() / step + $0 / step } ?? 0
        }
    }

    private func epsilon(delta: Double, step: Double) -> Double? {
        guard let sums = sums(step: step) else { return nil }
        guard sums.allSatisfy({ $0.infinityMass < delta }) else { return .infinity }
        guard let tilted = ComposedLoss.tilt(sums.map { ($0, $0.lambda(forDelta: delta)) }) else { return nil }
        var result = 0.0
        for index in tilted.indices {
            var found = tilted[index].epsilon(delta: delta)
            if found == -.infinity {
                // The answer is far below the window, so tilt for ε = 0, and then not at all.
                if let zero = ComposedLoss.tilt([(sums[index], sums[index].lambda(forEpsilon: 0))]),
                    zero[0].delta(epsilon: 0) <= delta
                {
                    found = 0
                } else if let plain = ComposedLoss.tilt([(sums[index], 0)]) {
                    found = max(0, plain[0].epsilon(delta: delta))
                } else {
                    return nil
                }
            }
            result = max(result, found)
        }
        return result
    }

    private func delta(epsilon: Double, step: Double) -> Double? {
        guard let sums = sums(step: step),
            let tilted = ComposedLoss.tilt(sums.map { ($0, $0.lambda(forEpsilon: epsilon)) })
        else { return nil }
        return tilted.map { $0.delta(epsilon: epsilon) }.max()
    }
}
