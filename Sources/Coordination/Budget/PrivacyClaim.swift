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

extension Coordinator {
    /// What is proven of everything that was released of a run's population up to one of its versions and what was measured of
    /// that: training, evaluations and statistics of all runs.
    ///
    /// Rounds of other runs that were open then count as if they had been published.
    ///
    /// - Returns: `nil` where nothing was charged by then.
    /// - Throws: ``CoordinationError`` `not_found`, or `privacy_invalid` where a total cannot be computed.
    package func claim(run id: String, version number: Int) throws -> PrivacyClaim? {
        let run = try runState(id)
        guard let version = run.versions.first(where: { $0.version == number }) else {
            throw CoordinationError(.notFound, "not_found", "run '\(id)' has no model version '\(number)'")
        }
        let population = try populationRecord(run.record.populationId)
        guard let delta = population.budgetDelta else { return nil }
        let places = ledger.places(ofPopulation: population.id)
        // The newest versions are asked for most: from the end.
        let index =
            places.lastIndex { place in
                let row = ledger.rows[place]
                return number > 0 && row.runId == id && row.round == number && row.state == .committed
            } ?? places.lastIndex { ledger.rows[$0].createdAt <= version.createdAt }
        guard let index else { return nil }
        let last = ledger.rows[places[index]].sequence
        let key = ClaimKey(population: population.id, sequence: last)
        if let known = claims[key] { return known }
        let account = ledger.account(population.id, through: last)
        guard !account.charges.isEmpty else { return nil }
        do {
            let releases = try account.releases()
            let rule = account.course.rule(of: releases)
            var claim = PrivacyClaim(
                charges: account.charges,
                releases: releases,
                epsilon: try BudgetArithmetic.epsilon(of: releases, delta: delta, rule: rule),
                delta: delta,
                rule: rule
            )
            claim.ledgerRows = index + 1
            // Rows are only ever appended: what was true of a beginning of the ledger stays true.
            if claims.count >= 256 { claims = [:] }
            claims[key] = claim
            return claim
        } catch {
            throw CoordinationError(.unprocessable, "privacy_invalid", "the cost cannot be computed: \(error)")
        }
    }
}

/// Which rows a claim was made of.
struct ClaimKey: Hashable, Sendable {
    var population: String
    var sequence: Int
}
