import StrictJSON
import UpdateCompression

extension RunSpecification {
    /// How single updates are kept from the server.
    package struct Protection: Codable, Equatable, Sendable {
        package var kind: ProtectionKind
        /// The helper's name for the population.
        package var domain: String
        /// b, the bits of a masked coordinate.
        package var bits: Int
        /// K in grid units, in privacy mode `none`; absent: as large as no update can be.
        package var norm: Int?

        package init(kind: ProtectionKind = .helper, domain: String, bits: Int, norm: Int? = nil) {
            (self.kind, self.domain, self.bits, self.norm) = (kind, domain, bits, norm)
        }

        /// The largest K that may be given.
        package static let normLimit = 1 << 48
        static let widths = [16, 32, 64]
    }

    /// Whether updates are masked.
    package var isProtected: Bool { protection != nil }

    /// Whether what a device says about its work must not depend on its data: with a promise of privacy, and with masked updates.
    package var hidesData: Bool { isPrivate || isProtected }

    /// The most updates of one sum: n_max.
    package var protectedMaximum: Int {
        let selected = (Double(cohort.goal) * cohort.overSelection - 1e-9).rounded(.up)
        return max(cohort.goal, Int(min(selected, 0x1p31)))
    }

    /// The most sums of the run that one client's updates are in.
    package var protectedParticipations: Int { cohort.maxParticipations > 0 ? cohort.maxParticipations : rounds }
}

extension RunSpecification.Protection {
    private static let helperFields: Set<String> = ["domain", "bits", "norm"]

    /// The section; `nil` where nothing is protected.
    init?(reading fields: FieldReader, privacyMode: PrivacyMode) {
        if fields.isText("kind", "secagg") {
            _ = fields.value("kind")
            fields.report(
                "kind",
                "secagg is not offered yet: helper needs a second party, and one message of each client"
            )
            for name in Self.helperFields { _ = fields.value(name) }
            return nil
        }
        kind = fields.choice("kind", default: .none)
        guard kind == .helper else {
            fields.isAlternative("kind none", fields: Self.helperFields)
            return nil
        }
        domain = fields.helperWord("domain")
        bits = fields.integer("bits", default: privacyMode == .none ? 32 : 64, in: 16...64)
        if !Self.widths.contains(bits) { fields.report("bits", "must be 16, 32 or 64") }
        norm = fields.optionalInteger("norm", in: 1...Self.normLimit)
    }

    /// What this section says that the privacy mode rules out.
    fileprivate func contradictions(_ privacy: RunSpecification.Privacy) -> [Contradiction] {
        var found: [Contradiction] = []
        guard privacy.mode != .none else { return found }
        if bits == 16 { found.add("bits", "must be 32 or 64 with noise, which needs its part of the ring") }
        if norm != nil {
            found.add(
                "norm",
                "is found from privacy.noise_multiplier in mode central, since the helper's noise has one size"
            )
        }
        return found
    }
}

extension RunSpecification {
    /// What the rest of the run asks for that a sum of masked updates cannot give.
    var protectionContradictions: [Contradiction] {
        guard let protection else { return [] }
        var found = protection.contradictions(privacy).under("protection")
        func refuse(_ isWrong: Bool, _ what: String, _ reason: String) {
            if isWrong { found.add("protection", "helper does not go with \(what): \(reason)") }
        }
        refuse(kind != .training, "kind \(kind)", "counts and votes through a helper are not offered yet")
        refuse(privacy.mode == .local, "privacy.mode local", "each device noises its own update already")
        refuse(
            aggregation.isBuffered,
            "aggregation.mode buffered",
            "a sum is of one session, and a buffer's updates weigh by their age"
        )
        refuse(
            aggregation.rule != .mean,
            "aggregation.rule \(aggregation.rule.name)",
            "the server sees no single update that it could compare"
        )
        refuse(aggregation.anomalies != nil, "aggregation.anomalies", "the server sees no single update to judge")
        refuse(
            aggregation.limitsNorms,
            "aggregation.norm_bound",
            "the server cannot scale an update that it cannot read"
        )
        refuse(
            aggregation.weighting != .uniform,
            "aggregation.weighting \(aggregation.weighting)",
            "no weight may travel beside a masked update"
        )
        refuse(
            privacy.isBanded,
            "privacy.mechanism banded_matrix",
            "the helper's noise of two rounds is not correlated"
        )
        refuse(
            privacy.mode == .central && !privacy.isBanded
                && ![.gaussian, .discreteGaussian].contains(privacy.mechanism.name),
            "privacy.mechanism \(privacy.mechanism.name)",
            "gaussian and discrete_gaussian are offered"
        )
        refuse(
            privacy.mode == .central && privacy.clipping.policy != .flat,
            "privacy.clipping.policy \(privacy.clipping.policy.name)",
            "the bound K is on the whole update, by a norm that does not change"
        )
        refuse(
            cohort.policy == .poisson || privacy.hasSecretDraw,
            "cohort.policy poisson",
            "the helper sees who takes part, so no draw is secret"
        )
        found += protectionWorkContradictions
        return found
    }

    /// What devices would send or do that a masked update has no place for.
    private var protectionWorkContradictions: [Contradiction] {
        var found: [Contradiction] = []
        func refuse(_ isWrong: Bool, _ what: String, _ reason: String) {
            if isWrong { found.add("protection", "helper does not go with \(what): \(reason)") }
        }
        refuse(training.usesControlVariates, "training.algorithm scaffold", "variates are not masked yet")
        refuse(training.submit != .delta, "training.submit \(training.submit)", "what is masked is a delta")
        refuse(
            training.encoding != .f32,
            "training.encoding \(training.encoding)",
            "a masked update has its own encoding; set protection.bits"
        )
        refuse(
            (training.modelEncoding ?? .f32) != .f32,
            "training.model_encoding",
            "the session's document names the bytes of the model that devices train on"
        )
        refuse(evaluation.every > 0, "evaluation.every", "measurements through a helper are not offered yet")
        refuse(metrics != nil, "metrics", "sums of metrics would travel beside the masked update")
        refuse(stop != nil, "stop", "a run through a helper measures nothing")
        refuse(cohort.minExamples > 1, "cohort.min_examples", "no number of examples comes with a masked update")
        refuse(
            cohort.tiers > 1 || cohort.targetSeconds > 0,
            "cohort.tiers and target_seconds",
            "every device of a session has the same instructions"
        )
        return found
    }
}
