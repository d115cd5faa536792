import Foundation

/// The T-fold sum of discrete losses, by one exponentially tilted Fourier transform.
///
/// Plain convolution by FFT has an absolute error that hides small tails: with T = 10⁶ steps it is about 10⁻⁹. Here every loss
/// distribution is tilted first, `p(x) e^{λx}/M(λ)`, with λ such that the sum's mean is at the loss that decides δ. Undoing the tilt
/// afterwards leaves a relative error of about T·10⁻¹⁵ in δ, however small δ is. The window of the transform comes from Chernoff
/// bounds on the tilted sum, and the mass that they leave outside is added to δ. Sources: Koskela et al. 2020, arXiv:1906.03049
/// (Fourier accountant); Esscher's transform.
package struct ComposedLoss: Sendable {
    struct Part: Sendable {
        var loss: DiscreteLoss
        var count: Double
        /// The same distribution in few points, which choose λ and the window.
        fileprivate var sketch: [(value: Double, mass: Double)]

        init(_ loss: DiscreteLoss, count: Int) {
            self.loss = loss
            self.count = Double(count)
            let bucket = max(1, loss.masses.count / 2048)
            sketch = stride(from: 0, to: loss.masses.count, by: bucket).compactMap { start in
                var (mass, moment) = (0.0, 0.0)
                for index in start..<min(loss.masses.count, start + bucket) {
                    mass += loss.masses[index]
                    moment += loss.masses[index] * Double(loss.firstIndex + index)
                }
                return mass > 0 ? (moment / mass * loss.step, mass) : nil
            }
        }

        /// `log E[e^{λL}; L finite]` on the sketch.
        fileprivate func sketchedCumulant(_ lambda: Double) -> Double {
            var largest = -Double.infinity
            for point in sketch { largest = max(largest, lambda * point.value) }
            return largest + log(sketch.reduce(0) { $0 + $1.mass * exp(lambda * $1.value - largest) })
        }

        /// `log E[e^{λL}; L finite]`, exactly.
        fileprivate func cumulant(_ lambda: Double) -> Double {
            let slope = lambda * loss.step
            let shift = max(slope * Double(loss.firstIndex), slope * Double(loss.firstIndex + loss.masses.count - 1))
            var total = 0.0
            for (index, mass) in loss.masses.enumerated() where mass > 0 {
                total += mass * exp(slope * Double(loss.firstIndex + index) - shift)
            }
            return shift + log(total)
        }
    }

    /// The cells of the tilted sum that are in the window.
    struct Tilted: Sendable {
        var lambda: Double
        /// `log Π M(λ)^T`.
        var logScale: Double
        var step: Double
        var firstIndex: Int
        var masses: [Double]
        /// δ that is added at every ε: infinite losses, and the mass outside the window.
        var extraDelta: Double
    }

    /// The most cells of the transform.
    ///
    /// Tests with very many questions set fewer.
    @TaskLocal package static var cellLimit = 1 << 21
    private static let logTail = log(1e-18)

    let parts: [Part]
    let step: Double

    /// The sums of both directions, transformed together as one complex array.
    static func tilt(_ sums: [(ComposedLoss, lambda: Double)]) -> [Tilted]? {
        guard let step = sums.first?.0.step, sums.count <= 2 else { return nil }
        // Two searches each, whether or not there is a window.
        guard LossAllowance.admits(sums.reduce(0) { $0 + 2 * $1.0.searchCost }) else { return nil }
        let plans = sums.map { $0.0.plan(lambda: $0.lambda) }
        // A plan without a window has a count of cells that no transform has.
        guard let longest = plans.map(\.cellCount).max(), longest <= cellLimit else { return nil }
        var count = 1 << 10
        while count < longest { count *= 2 }
        // One transform for each part, and one back.
        guard LossAllowance.admits(count * (1 + (sums.first?.0.parts.count ?? 0))) else { return nil }
        let transform = FourierTransform.shared(count: count)
        var (totalReal, totalImaginary) = ([Double](), [Double]())
        var logScales = [Double](repeating: 0, count: sums.count)
        for partIndex in 0..<(sums.first?.0.parts.count ?? 0) {
            var real = [Double](repeating: 0, count: count)
            var imaginary = real
            for (lane, sum) in sums.enumerated() {
                let part = sum.0.parts[partIndex]
                let logScale =
                    lane == 0
                    ? part.fold(lambda: sum.lambda, into: &real) : part.fold(lambda: sum.lambda, into: &imaginary)
                logScales[lane] += part.count * logScale
            }
            transform.transform(&real, &imaginary)
            let power = sums.first?.0.parts[partIndex].count ?? 1
            let isFirst = partIndex == 0
            if isFirst {
                totalReal = [Double](repeating: 0, count: count)
                totalImaginary = totalReal
            }
            Self.multiplyPower(real, imaginary, power, into: &totalReal, &totalImaginary, isFirst: isFirst)
        }
        transform.transform(&totalReal, &totalImaginary, inverse: true)
        return sums.indices.map { lane in
            let plan = plans[lane]
            let values = lane == 0 ? totalReal : totalImaginary
            let scale = 1 / Double(count)
            var masses = [Double](repeating: 0, count: count)
            for offset in 0..<count {
                masses[offset] = max(0, values[(plan.firstIndex + offset) & (count - 1)] * scale)
            }
            let left = Self.logTail + logScales[lane] - sums[lane].lambda * plan.upperEdge
            return Tilted(
                lambda: sums[lane].lambda,
                logScale: logScales[lane],
                step: step,
                firstIndex: plan.firstIndex,
                masses: masses,
                extraDelta: sums[lane].0.infinityMass + exp(min(0, left))
            )
        }
    }

    /// Multiplies `total` by the T-th power of the spectra of two real sequences, which are packed in one complex spectrum.
    private static func multiplyPower(
        _ real: [Double],
        _ imaginary: [Double],
        _ power: Double,
        into totalReal: inout [Double],
        _ totalImaginary: inout [Double],
        isFirst: Bool
    ) {
        let count = real.count
        real.withUnsafeBufferPointer { re in
            imaginary.withUnsafeBufferPointer { im in
                totalReal.withUnsafeMutableBufferPointer { outRe in
                    totalImaginary.withUnsafeMutableBufferPointer { outIm in
                        for k in 0...(count / 2) {
                            let mirror = (count - k) & (count - 1)
                            // The spectra of the two lanes.
                            let a = raise((re[k] + re[mirror]) / 2, (im[k] - im[mirror]) / 2, power)
                            let b = raise((im[k] + im[mirror]) / 2, (re[mirror] - re[k]) / 2, power)
                            var (ar, ai, br, bi) = (a.0, a.1, b.0, b.1)
                            if !isFirst {
                                let (tr, ti) = ((outRe[k] + outRe[mirror]) / 2, (outIm[k] - outIm[mirror]) / 2)
                                let (ur, ui) = ((outIm[k] + outIm[mirror]) / 2, (outRe[mirror] - outRe[k]) / 2)
                                (ar, ai) = (ar * tr - ai * ti, ar * ti + ai * tr)
                                (br, bi) = (br * ur - bi * ui, br * ui + bi * ur)
                            }
                            outRe[k] = ar - bi
                            outIm[k] = ai + br
                            outRe[mirror] = ar + bi
                            outIm[mirror] = br - ai
                        }
                    }
                }
            }
        }
    }

    private static func raise(_ re: Double, _ im: Double, _ power: Double) -> (Double, Double) {
        let square = re * re + im * im
        guard square > 0 else { return (0, 0) }
        let logSize = power * 0.5 * log(square)
        guard logSize > -120 else { return (0, 0) }
        let size = exp(logSize)
        let angle = power * atan2(im, re)
        return (size * cos(angle), size * sin(angle))
    }

    // MARK: - One direction

    var infinityMass: Double { parts.reduce(0) { $0 + $1.count * $1.loss.infinityMass } }

    private func sketchedCumulant(_ lambda: Double) -> Double {
        parts.reduce(0) { $0 + $1.count * $1.sketchedCumulant(lambda) }
    }

    private func cumulant(_ lambda: Double) -> Double {
        parts.reduce(0) { $0 + $1.count * $1.cumulant(lambda) }
    }

    /// What a search on the sketches costs, in cells: 45 values, and a dozen exponentials take as long as a cell of a transform.
    private var searchCost: Int { parts.reduce(0) { $0 + $1.sketch.count } * 45 / 12 }

    /// λ that gives the smallest ε by the Chernoff bound on δ; 0 where the question has no cells left.
    func lambda(forDelta delta: Double) -> Double {
        guard LossAllowance.admits(searchCost) else { return 0 }
        let target = -log(delta)
        return exp(
            Self.minimum(from: log(1e-7), to: log(1e7)) { logLambda in
                let lambda = exp(logLambda)
                return (sketchedCumulant(lambda) + target + Self.logGap(lambda)) / lambda
            }
        )
    }

    /// λ at which the tilted sum's mean is ε: the minimum of `K(λ) − λε`.
    ///
    /// It is 0 if the mean without a tilt is ε or more, and where the question has no cells left.
    func lambda(forEpsilon epsilon: Double) -> Double {
        guard LossAllowance.admits(searchCost) else { return 0 }
        let small = 1e-7
        if (sketchedCumulant(small) - sketchedCumulant(0)) / small >= epsilon { return 0 }
        return exp(
            Self.minimum(from: log(small), to: log(1e7)) { logLambda in
                let lambda = exp(logLambda)
                return sketchedCumulant(lambda) - lambda * epsilon + Self.logGap(lambda)
            }
        )
    }

    /// `log max over x of (1 − e^{−x}) e^{−λx}`: the gain of the hockey-stick divergence over the Chernoff bound.
    private static func logGap(_ lambda: Double) -> Double {
        lambda * log(lambda) - (1 + lambda) * log1p(lambda)
    }

    private struct Plan {
        var firstIndex: Int
        var cellCount: Int
        var upperEdge: Double
    }

    private func plan(lambda: Double) -> Plan {
        let base = sketchedCumulant(lambda)
        let up = exp(
            Self.minimum(from: log(1e-7), to: log(1e7)) {
                let s = exp($0)
                return (sketchedCumulant(lambda + s) - base - Self.logTail) / s
            }
        )
        let down = exp(
            Self.minimum(from: log(1e-7), to: log(1e7)) {
                let s = exp($0)
                return (sketchedCumulant(lambda - s) - base - Self.logTail) / s
            }
        )
        // The bounds are computed from all cells, so they hold whatever the sketch left out.
        let exact = cumulant(lambda)
        let lowest = parts.reduce(0.0) { $0 + $1.count * Double($1.loss.firstIndex) }
        let highest = parts.reduce(0.0) { $0 + $1.count * Double($1.loss.firstIndex + $1.loss.masses.count - 1) }
        let top = min(highest, ((cumulant(lambda + up) - exact - Self.logTail) / up / step).rounded(.up))
        let bottom = max(lowest, (-(cumulant(lambda - down) - exact - Self.logTail) / down / step).rounded(.down))
        let cells = top - bottom + 2
        // Bounds that are not finite, or that cross each other, give no window either.
        guard cells >= 1, cells < Double(Self.cellLimit * 2), abs(bottom) < 1e15 else {
            return Plan(firstIndex: 0, cellCount: .max, upperEdge: 0)
        }
        return Plan(firstIndex: Int(bottom), cellCount: Int(cells), upperEdge: top * step)
    }

    /// The argument at which a unimodal function is smallest: a coarse scan, then golden-section search.
    private static func minimum(from low: Double, to high: Double, _ value: (Double) -> Double) -> Double {
        let steps = 24
        let width = (high - low) / Double(steps)
        var (best, bestValue) = (low, Double.infinity)
        for index in 0...steps {
            let at = low + Double(index) * width
            let here = value(at)
            if here < bestValue { (best, bestValue) = (at, here) }
        }
        let ratio = (5.0.squareRoot() - 1) / 2
        var (left, right) = (best - width, best + width)
        var (a, b) = (right - ratio * (right - left), left + ratio * (right - left))
        var (atA, atB) = (value(a), value(b))
        for _ in 0..<18 {
            if atA < atB {
                (right, b, atB) = (b, a, atA)
                a = right - ratio * (right - left)
                atA = value(a)
            } else {
                (left, a, atA) = (a, b, atB)
                b = left + ratio * (right - left)
                atB = value(b)
            }
        }
        return min(high, max(low, atA < atB ? a : b))
    }
}

extension ComposedLoss.Part {
    /// Adds `p(x) e^{λx}/M` to cells that are indexed modulo their count.
    ///
    /// The window is chosen so that little mass wraps into it.
    ///
    /// - Returns: `log M(λ)`.
    fileprivate func fold(lambda: Double, into cells: inout [Double]) -> Double {
        let logScale = cumulant(lambda)
        let slope = lambda * loss.step
        let mask = cells.count - 1
        for (index, mass) in loss.masses.enumerated() where mass > 0 {
            let position = loss.firstIndex + index
            cells[position & mask] += mass * exp(slope * Double(position) - logScale)
        }
        return logScale
    }
}

extension ComposedLoss.Tilted {
    /// δ at ε.
    func delta(epsilon: Double) -> Double {
        var total = 0.0
        for offset in masses.indices.reversed() {
            let loss = Double(firstIndex + offset) * step
            guard loss > epsilon else { break }
            guard masses[offset] > 0 else { continue }
            total += masses[offset] * exp(logScale - lambda * loss) * -expm1(epsilon - loss)
        }
        return min(1, total * margin + extraDelta)
    }

    /// The smallest ε with δ(ε) at most `target`; minus infinity if it is below the window, infinity if it is above.
    func epsilon(delta target: Double) -> Double {
        guard extraDelta < target else { return .infinity }
        let wanted = (target - extraDelta) / margin
        // δ(ε) = upper − e^{ε − loss} · weight over the cells above ε. `weight` is relative to the last of them: relative to a fixed point
        // it would overflow a double in windows wider than 709.
        let decay = exp(-step)
        var (upper, weight) = (0.0, 0.0)
        for offset in masses.indices.reversed() {
            let loss = Double(firstIndex + offset) * step
            let below = weight * decay
            // Written so that NaN counts as not meeting δ.
            if !(upper - below <= wanted) {
                guard upper.isFinite, weight > 0 else { return .infinity }
                // The answer is between this point and the one above; there δ is linear in e^ε.
                return max(loss, min(loss + step, loss + step + log((upper - wanted) / weight)))
            }
            weight = below
            guard masses[offset] > 0 else { continue }
            let share = masses[offset] * exp(logScale - lambda * loss)
            upper += share
            weight += share
        }
        return -.infinity
    }

    /// A factor that covers the rounding errors of the transforms and of the powers.
    private var margin: Double { 1 + 1e-9 }
}
