import DifferentialPrivacy
import TestSupport
import Testing

struct BudgetArithmeticTests {
    private func gaussian(_ z: Double, rounds: Int, cap: Int, coordinates: Int = 10_000) -> CappedRelease {
        CappedRelease(.gaussian(noiseMultiplier: z), count: rounds, cap: cap, coordinateCount: coordinates)
    }

    private func epsilon(_ releases: [CappedRelease], delta: Double = 1e-5) throws -> Double {
        try BudgetArithmetic.epsilon(of: releases, delta: delta, accountant: .gaussian)
    }

    /// What releases fail with has a box of its own: no ε is given up for it, and none is gained.
    @Test func failuresHaveTheirOwnShareOfDelta() throws {
        let z = 2.0
        func release(_ count: Int, failing: Double, prepaid: Int = 0) -> CappedRelease {
            .init(.gaussian(noiseMultiplier: z), count: count, cap: 10, prepaidCount: prepaid, failureDelta: failing)
        }
        let failing = release(4, failing: 4e-7)
        #expect(BudgetArithmetic.start(with: failing, isAdaptive: true) == .thresholded)
        let rule = BudgetArithmetic.enforcingRule(of: [failing], isAdaptive: true, start: .thresholded)
        #expect(rule == .thresholded && rule.provenDelta(of: [failing], delta: 1e-5) == 1e-5)
        let expected = GaussianAccountant.epsilon(delta: 0.8e-5, noiseMultiplier: z / 2)
        #expect(abs(try BudgetArithmetic.epsilon(of: [failing], delta: 1e-5, rule: rule) - expected) < 1e-9)
        #expect(BudgetArithmetic.shortage(of: [failing], delta: 1e-5, rule: rule) == nil)
        // Six are more than a fifth of δ, and the answer says that it is δ that ends.
        let six = release(6, failing: 4e-7)
        #expect(try BudgetArithmetic.epsilon(of: [six], delta: 1e-5, rule: rule) == .infinity)
        let shortage = try #require(BudgetArithmetic.shortage(of: [six], delta: 1e-5, rule: rule))
        #expect(abs(shortage.needed - 2.4e-6) < 1e-18 && abs(shortage.allowed - 2e-6) < 1e-18)
        // A client is in ten of them at most, so that is where failures end.
        #expect(
            abs(BudgetArithmetic.shortage(of: [release(1000, failing: 4e-7)], delta: 1e-5, rule: rule)!.needed - 4e-6)
                < 1e-18
        )
        // Where nothing was set aside they come beside δ, a hundredth of it.
        let later = BudgetArithmetic.enforcingRule(of: [failing], isAdaptive: true)
        #expect(later == EnforcingRule(.gaussian) && later.provenDelta(of: [failing], delta: 1e-5) > 1e-5)
        #expect(try BudgetArithmetic.epsilon(of: [failing], delta: 1e-5, rule: later) == .infinity)
        let whole = GaussianAccountant.epsilon(delta: 1e-5, noiseMultiplier: z / 2)
        let rare = release(4, failing: 2e-8)
        #expect(abs(try BudgetArithmetic.epsilon(of: [rare], delta: 1e-5, rule: later) - whole) < 1e-9)
        // A client may have all its turns among what came after the prepaid releases.
        let mixed = EnforcingRule(.filter, deltaShare: EnforcingRule.mixedShare)
        let capped = CappedRelease(.gaussian(noiseMultiplier: 5), count: 9, cap: 3, prepaidCount: 5, failureDelta: 4e-8)
        #expect(try BudgetArithmetic.epsilon(of: [capped], delta: 1e-5, rule: mixed) == .infinity)
        #expect(abs(BudgetArithmetic.shortage(of: [capped], delta: 1e-5, rule: mixed)!.needed - 1.2e-7) < 1e-18)
        // Of a plan that was fixed, other accountants take failures off δ.
        let rest = try BudgetArithmetic.epsilon(of: [failing], delta: 1e-5, accountant: .gaussian)
        #expect(abs(rest - GaussianAccountant.epsilon(delta: 8.4e-6, noiseMultiplier: z / 2)) < 1e-9)
    }

    /// So seldom and with so little noise that Rényi shows an ε whose exponential would take all of δ for the sampler.
    @Test(.slow) func aRareReleaseCostsWhatLossesSayAndNotInfinity() throws {
        let release = CappedRelease(
            .poissonGaussian(samplingRate: 1e-12, noiseMultiplier: 0.1),
            count: 10,
            coordinateCount: 1000
        )
        let epsilon = try BudgetArithmetic.epsilon(of: [release], delta: 1e-5, accountant: .pld)
        // Somebody is in one of the rounds with a chance of 1e-11, far under δ.
        #expect(epsilon >= 0 && epsilon < 1e-3, "\(epsilon)")
        // Where losses are composed at no smaller δ, Rényi has the last word: the sampler leaves less than that here.
        let frequent = CappedRelease(
            .poissonGaussian(samplingRate: 0.01, noiseMultiplier: 4),
            count: 10,
            coordinateCount: 1
        )
        let least = LossDistributionAccountant.smallestDelta
        let byRenyi = try BudgetArithmetic.epsilon(of: [frequent], delta: least, accountant: .rdp)
        #expect(byRenyi > 0 && byRenyi < 5, "\(byRenyi)")
        #expect(try BudgetArithmetic.epsilon(of: [frequent], delta: least, accountant: .pld) == byRenyi)
    }

    @Test func costGrowsWithTheCapAndNotWithTheRounds() throws {
        #expect(try epsilon([]) == 0)
        #expect(abs(try epsilon([gaussian(1, rounds: 1, cap: 1)]) - 4.37717809568) < 1e-3)
        #expect(abs(try epsilon([gaussian(1, rounds: 50, cap: 1)]) - epsilon([gaussian(1, rounds: 1, cap: 1)])) < 1e-3)
        // Four releases at z = 1 are one at z = 1/2; one run's cost and another's add in 1/z².
        let half = GaussianAccountant.epsilon(delta: 1e-5, noiseMultiplier: 0.5)
        #expect(abs(try epsilon([gaussian(1, rounds: 50, cap: 4)]) - half) < 1e-2)
        let two = try epsilon([gaussian(1, rounds: 9, cap: 1), gaussian(2, rounds: 9, cap: 2)])
        #expect(abs(two - GaussianAccountant.epsilon(delta: 1e-5, noiseMultiplier: (1 / 1.5).squareRoot())) < 1e-3)
    }

    @Test func theSamplersErrorIsTakenOffDelta() throws {
        let few = try epsilon([gaussian(1, rounds: 1, cap: 1, coordinates: 1)], delta: 1e-8)
        #expect(try epsilon([gaussian(1, rounds: 1, cap: 1, coordinates: 1 << 40)], delta: 1e-8) > few)
        // Where nothing of δ would be left, what holds for the integer noise itself is charged instead.
        let many = try epsilon([gaussian(1, rounds: 1, cap: 1, coordinates: 1 << 60)], delta: 1e-8)
        #expect(abs(many - ZeroConcentratedAccountant.tightEpsilon(rho: 0.5, delta: 1e-8).epsilon) < 1e-9)
        let sampled = CappedRelease(.poissonGaussian(samplingRate: 0.5, noiseMultiplier: 1), coordinateCount: 1 << 60)
        for kind in [AccountantKind.rdp, .pld] {
            #expect(try BudgetArithmetic.epsilon(of: [sampled], delta: 1e-8, accountant: kind) == .infinity)
        }
    }

    /// Twenty-five participations at z = 1 cost more than e^ε could take from δ: a large budget admits them all the same.
    @Test func aLargeBudgetIsNotLostToTheSamplersError() throws {
        let total = try epsilon([gaussian(1, rounds: 25, cap: 25, coordinates: 100_000)])
        #expect(total < 50 && total > GaussianAccountant.epsilon(delta: 1e-5, noiseMultiplier: 0.2))
    }

    @Test func whoMayEnforceFollowsFromTheEventsAndThePlan() {
        let laplace = CappedRelease(.laplace(scale: 10), count: 2)
        let skellam = CappedRelease(
            .skellam(SkellamMechanism(norms: RoundedNorms(clip: 100, beta: 0.6, dimension: 64), totalVariance: 2500))
        )
        let exact = gaussian(1, rounds: 3, cap: 1)
        func rule(_ releases: [CappedRelease], isAdaptive: Bool, start: BudgetStart = .exact) -> EnforcingRule {
            BudgetArithmetic.enforcingRule(of: releases, isAdaptive: isAdaptive, start: start)
        }
        #expect(rule([exact], isAdaptive: true) == EnforcingRule(.gaussian))
        #expect(rule([exact, laplace], isAdaptive: false) == EnforcingRule(.pld))
        #expect(rule([exact, skellam], isAdaptive: false) == EnforcingRule(.rdp))
        // What was decided by the first charge has the whole δ; what was mixed later a share beside it.
        #expect(rule([exact, laplace], isAdaptive: true) == EnforcingRule(.filter, deltaShare: 0.05))
        #expect(rule([exact, laplace], isAdaptive: true, start: .filtered) == EnforcingRule(.filter))
        #expect(rule([exact], isAdaptive: true, start: .filtered) == EnforcingRule(.filter))
        #expect(BudgetArithmetic.start(with: .init(.laplace(scale: 1)), isAdaptive: true) == .filtered)
        #expect(BudgetArithmetic.start(with: .init(.laplace(scale: 1)), isAdaptive: false) == .exact)
        #expect(BudgetArithmetic.start(with: .init(.gaussian(noiseMultiplier: 1)), isAdaptive: true) == .exact)
        #expect(AccountantKind.allCases.filter { type(of: $0.make()).isFilter } == [.gaussian, .filter, .zcdp, .basic])
    }

    @Test func lossDistributionsRefuseADeltaBelowTheirRounding() throws {
        let laplace = CappedRelease(.laplace(scale: 10), count: 2)
        let sampled = CappedRelease(
            .poissonGaussian(samplingRate: 0.1, noiseMultiplier: 2),
            count: 10,
            coordinateCount: 10
        )
        for release in [laplace, sampled] {
            func epsilon(_ delta: Double, _ kind: AccountantKind = .pld) throws -> Double {
                try BudgetArithmetic.epsilon(of: [release], delta: delta, accountant: kind)
            }
            #expect(try epsilon(1e-13).isFinite && epsilon(9.9e-14, .rdp).isFinite)
            let error = #expect(throws: PrivacyError.self) { try epsilon(9.9e-14) }
            #expect(error?.description.contains("1e-13 or more with loss distributions") == true, "\(error as Any)")
            #expect(error?.description.contains("the accountant rdp") == true)
        }
        // Gaussian events are one closed form, at any δ.
        #expect(
            try BudgetArithmetic.epsilon(of: [gaussian(2, rounds: 1, cap: 1)], delta: 1e-15, accountant: .gaussian) > 0
        )
    }

    @Test func everyAccountantRefusesWhatItCannotJudge() {
        for kind in AccountantKind.allCases {
            for bad in [
                PrivacyEvent.gaussian(noiseMultiplier: 0), .gaussian(noiseMultiplier: .nan), .laplace(scale: -1),
                .poissonGaussian(samplingRate: 1.5, noiseMultiplier: 1), .approximate(epsilon: 1, delta: 1),
            ] {
                #expect(throws: PrivacyError.self) { try kind.accountant(of: [(bad, 1)]) }
            }
        }
        #expect(throws: PrivacyError.self) {
            try AccountantKind.basic.accountant(of: [(.gaussian(noiseMultiplier: 1), 1)])
        }
        for delta in [0, 1, -1, .nan, .infinity] as [Double] {
            #expect(throws: PrivacyError.self) { try epsilon([gaussian(1, rounds: 1, cap: 1)], delta: delta) }
        }
    }

    @Test func theClassicalBoundIsRefusedWhereItIsNotProven() throws {
        #expect(try GaussianAccountant.classicalNoiseMultiplier(epsilon: 0.5, delta: 1e-5) > 9.6)
        for epsilon in [0, 1, 8, .infinity, .nan] as [Double] {
            #expect(throws: PrivacyError.self) {
                try GaussianAccountant.classicalNoiseMultiplier(epsilon: epsilon, delta: 1e-5)
            }
        }
    }
}
