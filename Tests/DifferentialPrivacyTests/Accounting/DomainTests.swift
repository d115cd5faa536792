import DifferentialPrivacy
import Foundation
import Tensors
import TestSupport
import Testing

/// Every parameter that a command line or a run file can hold has an answer or a refusal by name, and the answers make sense.
///
/// `Fuzz plan` asks far more often, and of run files too.
struct DomainTests {
    /// Parameters over many orders of magnitude, some of them absurd.
    private struct Case: CustomTestStringConvertible {
        var noise: Double
        var rate: Double
        var count: Int
        var delta: Double
        var epsilon: Double
        var isWild: Bool
        var testDescription: String { "z=\(noise) q=\(rate) T=\(count) delta=\(delta) epsilon=\(epsilon)" }

        init(_ generator: inout Xoshiro256StarStar) {
            func spread(_ low: Double, _ high: Double) -> Double {
                pow(10, low + (high - low) * Double(generator.nextUniform()))
            }
            isWild = generator.nextIndex(below: 4) == 0
            noise = isWild ? spread(-300, 300) : spread(-2, 3)
            rate = generator.nextIndex(below: 8) == 0 ? 1 : isWild ? spread(-300, 0.3) : spread(-6, 0)
            count = Int(spread(0, 9))
            delta = isWild ? spread(-320, 0.2) : spread(-12, -2)
            epsilon = isWild ? spread(-300, 300) : spread(-3, 3)
        }

        var event: PrivacyEvent {
            rate == 1
                ? .gaussian(noiseMultiplier: noise) : .poissonGaussian(samplingRate: rate, noiseMultiplier: noise)
        }
    }

    /// What is asked of one case; a refusal is an answer, a trap would end the process.
    private func ask(_ item: Case, _ kind: AccountantKind, _ question: Int) throws(PrivacyError) -> Double {
        let event = item.event
        switch question {
        case 0: return try kind.accountant(of: [(event, item.count)]).epsilon(delta: item.delta)
        case 1: return try kind.accountant(of: [(event, item.count)]).delta(epsilon: item.epsilon)
        case 2:
            return try NoiseCalibration.noiseMultiplier(
                epsilon: item.epsilon,
                delta: item.delta,
                samplingRate: item.rate,
                steps: item.count,
                accountant: kind
            )
        case 3:
            return Double(
                try NoiseCalibration.roundsThatFit(event, epsilon: item.epsilon, delta: item.delta, accountant: kind)
            )
        default:
            let release = CappedRelease(event, count: item.count, cap: item.count / 2, coordinateCount: 1_000_000)
            return try BudgetArithmetic.epsilon(of: [release], delta: item.delta, accountant: kind)
        }
    }

    /// The error of a search names its own end and its own delta.
    @Test(.slow) func aTargetOutOfReachIsNamedWithTheSearchsLimits() throws {
        let error = #expect(throws: PrivacyError.self) {
            try NoiseCalibration.search(0.5, delta: 1e-7, width: 1e-4, from: 1, in: 0.1...10_000) { _ in 1 }
        }
        #expect(error == .unreachableTarget(epsilon: 0.5, delta: 1e-7, limit: 10_000))
        #expect(error?.description == "no noise multiplier up to 10000 meets epsilon 0.5 at delta 1e-07")
        let far = #expect(throws: PrivacyError.self) {
            try NoiseCalibration.noiseMultiplier(
                epsilon: 1e-12,
                delta: 1e-9,
                samplingRate: 0.5,
                steps: 1000,
                accountant: .rdp
            )
        }
        #expect(far == .unreachableTarget(epsilon: 1e-12, delta: 1e-9, limit: 1e6))
    }

    /// Loss distributions are slow without optimisation: they have a hundredth of the cases, and small transforms.
    @Test(.slow) func everyQuestionHasAnAnswerOrARefusal() {
        var generator = Xoshiro256StarStar(seed: 1129)
        let kinds = AccountantKind.allCases.filter { $0 != .pld }
        for index in 0..<1000 {
            let item = Case(&generator)
            let isSlow = index % 100 == 0
            let kind = isSlow ? .pld : kinds[generator.nextIndex(below: kinds.count)]
            let question = isSlow ? [0, 1, 4][generator.nextIndex(below: 3)] : generator.nextIndex(below: 5)
            // Rényi divergences take a while where they are not optimised, and searches by them seconds.
            guard kind != .rdp || index % (question == 2 || question == 3 ? 20 : 4) == 0 else { continue }
            let answer = ComposedLoss.$cellLimit.withValue(1 << 11) {
                Result { () throws(PrivacyError) in try ask(item, kind, question) }
            }
            if case .success(let value) = answer { #expect(!value.isNaN && value >= 0, "\(item) \(kind) \(question)") }
        }
    }

    /// The settings that ended a server (arithmetic overflow), and some whose windows are wider than a double's exponent:
    /// there ε came out as 0 or 10 once the overflow was gone, because sums overflowed in silence.
    ///
    /// Both accountants are upper bounds on one true ε, and nothing more orders them: a coarse grid may show more than Rényi, and
    /// Rényi may show many times what is true, as its best order is found among few and its conversion to δ loses. What must hold is
    /// that neither is under what is true, of which ``SumOfOutputs`` is a part that can be written down; and that loss distributions
    /// on a grid that is fine enough are not over Rényi, or they would not be worth their cost.
    @Test(.slow) func noAccountantIsUnderWhatTheSumOfAllOutputsTells() throws {
        for (rate, count) in [(0.001, 100), (0.01, 1000), (0.05, 200), (0.02, 50), (0.5, 20)] {
            var last = Double.infinity
            for noise in [0.05, 0.1, 0.2, 0.4, 0.8] {
                let event = PrivacyEvent.poissonGaussian(samplingRate: rate, noiseMultiplier: noise)
                var losses = LossDistributionAccountant(grid: .coarse)
                try losses.add(event, count: count)
                let coarse = try ComposedLoss.$cellLimit.withValue(1 << 11) { try losses.epsilon(delta: 1e-6) }
                let fine = try ComposedLoss.$cellLimit.withValue(1 << 13) { try losses.epsilon(delta: 1e-6) }
                let renyi = try AccountantKind.rdp.accountant(of: [(event, count)]).epsilon(delta: 1e-6)
                let least = SumOfOutputs(samplingRate: rate, noiseMultiplier: noise, count: count).epsilon(delta: 1e-6)
                let text = Comment(rawValue: "q=\(rate) T=\(count) z=\(noise): \(least) \(fine) \(coarse) \(renyi)")
                #expect(least > 0 && least <= fine && least <= coarse && least <= renyi, text)
                #expect(fine <= coarse * (1 + 1e-9), text)
                #expect(fine <= renyi * 1.02, text)
                // More noise costs less, on the same grid.
                #expect(coarse < last, text)
                last = coarse
            }
        }
    }

    @Test(arguments: [1e-5, 0, -1, 2e12, .infinity, .nan])
    func noiseOutsideTheDomainIsRefusedByName(_ noise: Double) {
        for event in [PrivacyEvent.gaussian(noiseMultiplier: noise), .laplace(scale: noise)] {
            let error = #expect(throws: PrivacyError.self) { try AccountantKind.basic.accountant(of: [(event, 1)]) }
            #expect(error?.description.contains("allowed is 1e-4 to 1e12") == true, "\(error as Any)")
        }
    }
}

/// What one who sees nothing but the sum of T sampled Gaussian releases learns: an exact lower bound on ε of all of them.
///
/// With the client the sum is Σ_k Bin(T, q)(k) · N(k, T z²), without it N(0, T z²). A function of what is released is post-processing, so
/// that its hockey-stick divergence is at most that of the whole. The ratio of the densities grows with the sum, so that the worst
/// set at ε is a half line, and both its chances are sums of Gaussian tails.
private struct SumOfOutputs {
    private let deviation: Double
    /// `log Bin(T, q)(k)` by k, by k.
    private let logChances: [Double]

    init(samplingRate q: Double, noiseMultiplier: Double, count: Int) {
        deviation = noiseMultiplier * Double(count).squareRoot()
        let n = Double(count)
        logChances = (0...count).map { k in
            let m = Double(k)
            return lgamma(n + 1) - lgamma(m + 1) - lgamma(n - m + 1) + m * log(q) + (n - m) * log1p(-q)
        }
    }

    /// `log` of the ratio of the densities at a sum.
    private func logRatio(_ sum: Double) -> Double {
        let terms = logChances.enumerated().map { k, chance in
            chance + (2 * Double(k) * sum - Double(k * k)) / (2 * deviation * deviation)
        }
        let largest = terms.max() ?? 0
        return largest + log(terms.reduce(0) { $0 + exp($1 - largest) })
    }

    /// `log Pr[N(0, 1) ≥ x]`; under it where only its asymptotic series is left.
    private func logTail(_ x: Double) -> Double {
        let tail = erfc(x / 2.0.squareRoot()) / 2
        return tail > 1e-290 ? log(tail) : -x * x / 2 - log(x * (2 * Double.pi).squareRoot()) + log1p(-1 / (x * x))
    }

    /// δ at the ε whose worst set begins at this sum.
    private func delta(from sum: Double) -> Double {
        let with = logChances.enumerated().reduce(0) { total, item in
            // What is less counts for nothing beside the deltas that are asked for.
            item.element < -60 ? total : total + exp(item.element + logTail((sum - Double(item.offset)) / deviation))
        }
        return with - exp(logRatio(sum) + logTail(sum / deviation))
    }

    /// The ε at which the sum alone has this δ: more of the half line means less ε and more δ.
    func epsilon(delta target: Double) -> Double {
        // From the sum at which both worlds are as likely.
        var (low, high) = (0.0, Double(logChances.count) + 12 * deviation)
        for _ in 0..<60 {
            let middle = (low + high) / 2
            if delta(from: middle) > target { low = middle } else { high = middle }
        }
        return logRatio(low)
    }
}
