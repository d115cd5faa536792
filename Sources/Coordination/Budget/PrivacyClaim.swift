package import DifferentialPrivacy
package import WireFormat

extension PrivacyClaim {
    /// The claim of releases with a known total.
    package init(
        charges: [PrivacyCharge],
        releases: [CappedRelease],
        epsilon: Double,
        delta: Double,
        rule: EnforcingRule
    ) {
        let relations = Set(charges.map(\.relation))
        self.init(
            epsilon: epsilon,
            delta: rule.provenDelta(of: releases, delta: delta),
            relations: relations.isEmpty ? [.zeroOut] : relations.sorted { $0.rawValue < $1.rawValue },
            amplification: charges.contains { $0.kind == .poissonGaussian } ? .poisson : .none,
            accountant: rule.accountant.rawValue,
            assumptions: Assumption.allCases.filter { assumption in
                charges.contains { charge in
                    switch assumption {
                    case .serverAddsNoise: charge.mode == .central
                    case .drawIsSecret: charge.kind == .poissonGaussian
                    case .noClientColludes: charge.kind == .sampleAndThreshold
                    }
                }
            }
        )
    }
}

extension PopulationAccount {
    /// The charges that count, each plan once.
    package var charges: [PrivacyCharge] { planOrder.filter { (plans[$0]?.all ?? 0) > 0 }.map(\.charge) }
}
