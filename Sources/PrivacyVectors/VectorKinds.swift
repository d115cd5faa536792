import DifferentialPrivacy
import Foundation

/// One computation for each kind of reference case.
enum VectorKinds {
    typealias Parameters = ReferenceVectors.Parameters
    typealias Result = ReferenceVectors.Result

    /// - Returns: `nil` for a kind that is not known.
    static func compute(_ kind: String, _ p: Parameters, _ expected: [String: Any]) throws -> Result? {
        switch kind {
        case "gaussian_epsilon":
            let z = try p.number("sigma") / p.number("sensitivity")
            return one("epsilon", GaussianAccountant.epsilon(delta: try p.number("delta"), noiseMultiplier: z))
        case "gaussian_delta":
            let z = try p.number("sigma") / p.number("sensitivity")
            let log = GaussianAccountant.logDelta(epsilon: try p.number("epsilon"), noiseMultiplier: z)
            return Result(values: ["delta": exp(log), "log_delta": log])
        case "gaussian_sigma": return try gaussianSigma(p)
        case "local_dp_gaussian":
            let z = try GaussianAccountant.noiseMultiplier(epsilon: p.number("epsilon"), delta: p.number("delta"))
            let deviation = try 2 * p.number("clip") * z
            return Result(values: [
                "client_noise_std": deviation, "mean_noise_std": deviation / (try p.number("clients")).squareRoot(),
            ])
        case "rdp_sampled_gaussian":
            let steps = p.number("steps", default: 1)
            let (q, z) = (try p.number("q"), try p.number("sigma"))
            return one(
                "rdp",
                try p.numbers("orders").map {
                    steps * RenyiDivergence.poissonGaussian(samplingRate: q, noiseMultiplier: z, order: $0)
                }
            )
        case "rdp_fixed_size_without_replacement":
            let steps = p.number("steps", default: 1)
            let (q, z) = (try p.number("q"), try p.number("sigma"))
            return one(
                "rdp",
                try p.numbers("orders").map {
                    steps * RenyiDivergence.fixedSizeGaussian(samplingRate: q, noiseMultiplier: z, order: $0)
                }
            )
        case "rdp_epsilon":
            var accountant = RenyiAccountant()
            try add(p, to: &accountant)
            let best = try accountant.bestEpsilon(delta: p.number("delta"))
            var result = all(expected, best.epsilon, judged: "epsilon")
            result.values["optimal_order"] = best.order
            return result
        case "pld_epsilon":
            var accountant = LossDistributionAccountant()
            try add(p, to: &accountant)
            return all(expected, try accountant.epsilon(delta: p.number("delta")), judged: "epsilon")
        case "pld_delta":
            var accountant = LossDistributionAccountant()
            try add(p, to: &accountant)
            return all(expected, try accountant.delta(epsilon: p.number("epsilon")), judged: "delta")
        case "laplace_epsilon": return try laplaceEpsilon(p)
        case "laplace_rdp":
            let b = try p.number("b") / p.number("sensitivity", default: 1)
            return one("rdp", try p.numbers("orders").map { RenyiDivergence.laplace(scale: b, order: $0) })
        case "zcdp_epsilon":
            let (rho, delta) = (try p.number("rho"), try p.number("delta"))
            let tight = ZeroConcentratedAccountant.tightEpsilon(rho: rho, delta: delta)
            return Result(values: [
                "epsilon_simple": ZeroConcentratedAccountant.simpleEpsilon(rho: rho, delta: delta),
                "epsilon_tight": tight.epsilon, "alpha_opt": tight.order,
            ])
        case "composition_eps_delta": return try composition(p)
        case "calibrate_sigma": return try calibration(p, expected)
        case "ledger_max_rounds": return try maxRounds(p, expected)
        case "discrete_gaussian": return try discreteGaussian(p, expected)
        case "distributed_discrete_gaussian", "skellam": return try distributed(kind, p, expected)
        case "distributed_noise_shortfall": return try shortfall(p)
        case "adaptive_clipping": return try adaptiveClipping(p)
        case "banded_toeplitz_mf": return try bandedMatrix(p)
        case "tree_aggregation": return try tree(p)
        case "shuffle_closed_form":
            let found = ShuffleAmplification.epsilon(
                localEpsilon: try p.number("epsilon0"),
                count: try p.integer("n"),
                delta: try p.number("delta")
            )
            return Result(values: ["valid": found.isValid, "epsilon": found.epsilon])
        case "one_run_audit": return try audit(p)
        default: return nil
        }
    }

    // MARK: - Helpers

    private static func one(_ key: String, _ value: any Sendable) -> Result { Result(values: [key: value]) }

    /// The same quantity under every key that speaks of it.
    private static func all(_ expected: [String: Any], _ value: Double, judged: String) -> Result {
        Result(values: expected.mapValues { _ in value }, judged: [judged: value])
    }

    private static func add(_ p: Parameters, to accountant: inout some PrivacyAccountant) throws {
        guard let steps = p.values["composition"] as? [[String: Any]] else {
            throw ReferenceVectors.FormatError(description: "the parameter composition is missing")
        }
        for step in steps {
            let item = Parameters(values: step)
            let count = try item.integer("steps")
            switch step["mechanism"] as? String {
            case "laplace": try accountant.add(.laplace(scale: item.number("b")), count: count)
            case nil, "gaussian":
                let (q, z) = (item.number("q", default: 1), try item.number("sigma"))
                try accountant.add(.poissonGaussian(samplingRate: q, noiseMultiplier: z), count: count)
            case let other?:
                throw ReferenceVectors.FormatError(description: "the mechanism \(other) is not known")
            }
        }
    }

    private static func event(_ q: Double, _ z: Double) -> PrivacyEvent {
        q == 1 ? .gaussian(noiseMultiplier: z) : .poissonGaussian(samplingRate: q, noiseMultiplier: z)
    }

    // MARK: - Kinds

    private static func gaussianSigma(_ p: Parameters) throws -> Result {
        let (epsilon, delta) = (try p.number("epsilon"), try p.number("delta"))
        let sensitivity = try p.number("sensitivity")
        let exact = try GaussianAccountant.noiseMultiplier(epsilon: epsilon, delta: delta)
        var values: [String: any Sendable] = ["sigma_analytic": exact * sensitivity]
        if epsilon < 1 {
            values["sigma_classical"] =
                try GaussianAccountant.classicalNoiseMultiplier(epsilon: epsilon, delta: delta) * sensitivity
        }
        return Result(values: values)
    }

    private static func laplaceEpsilon(_ p: Parameters) throws -> Result {
        let pure = try p.number("steps") * p.number("sensitivity") / p.number("b")
        let delta = try p.number("delta")
        guard delta > 0 else { return Result(values: ["pure_epsilon": pure, "epsilon": pure]) }
        guard try p.integer("steps") == 1 else {
            var accountant = LossDistributionAccountant()
            try accountant.add(.laplace(scale: p.number("b") / p.number("sensitivity")), count: p.integer("steps"))
            return Result(values: ["pure_epsilon": pure, "epsilon": min(pure, try accountant.epsilon(delta: delta))])
        }
        // One release: δ(ε) = 1 − e^{(ε − ε₀)/2}.
        return Result(values: ["pure_epsilon": pure, "epsilon": max(0, pure + 2 * log1p(-delta))])
    }

    private static func composition(_ p: Parameters) throws -> Result {
        let (epsilon, delta) = (try p.number("epsilon0"), try p.number("delta0"))
        let (count, slack) = (try p.integer("k"), try p.number("delta_slack"))
        let total = Double(count) * delta + slack
        var values: [String: any Sendable] = [
            "basic_epsilon": Double(count) * epsilon, "basic_delta": Double(count) * delta,
            "advanced_epsilon": HomogeneousComposition.advancedEpsilon(epsilon: epsilon, count: count, slack: slack),
            "advanced_delta": total,
        ]
        values["kov_epsilon_at_advanced_delta"] = HomogeneousComposition.optimalEpsilon(
            epsilon: epsilon,
            delta: delta,
            count: count,
            totalDelta: total
        )
        return Result(values: values)
    }

    private static func calibration(_ p: Parameters, _ expected: [String: Any]) throws -> Result {
        func noise(_ accountant: AccountantKind) throws -> Double {
            try NoiseCalibration.noiseMultiplier(
                epsilon: p.number("epsilon"),
                delta: p.number("delta"),
                samplingRate: p.number("q"),
                steps: p.integer("steps"),
                accountant: accountant
            )
        }
        let tight = try noise(.pld)
        return Result(values: ["sigma_rdp": try noise(.rdp), "sigma_tight": tight, "sigma_tight_accept": tight])
    }

    private static func maxRounds(_ p: Parameters, _ expected: [String: Any]) throws -> Result {
        let (epsilon, delta) = (try p.number("epsilon"), try p.number("delta"))
        let release = event(try p.number("q"), try p.number("sigma"))
        func fit(_ accountant: AccountantKind) throws -> Int {
            try NoiseCalibration.roundsThatFit(release, epsilon: epsilon, delta: delta, accountant: accountant)
        }
        let rounds = try fit(.rdp)
        var accountant = RenyiAccountant()
        try accountant.add(release, count: rounds)
        let last = try accountant.epsilon(delta: delta)
        try accountant.add(release)
        let tight = Double(try fit(.pld))
        return Result(values: [
            "max_rounds_rdp": Double(rounds), "epsilon_after_last_rdp": last,
            "epsilon_if_one_more_rdp": try accountant.epsilon(delta: delta), "max_rounds_tight": tight,
            "max_rounds_tight_accept": tight,
        ])
    }

    private static func discreteGaussian(_ p: Parameters, _ expected: [String: Any]) throws -> Result {
        let noise = try DiscreteGaussian(scale: p.number("sigma"))
        let sensitivity = try p.integer("sensitivity")
        var masses: [String: Double] = [:]
        for key in (expected["pmf_at"] as? [String: Any] ?? [:]).keys {
            masses[key] = Int(key).map { noise.probability($0) }
        }
        var epsilons: [String: Double] = [:]
        for key in (expected["epsilon_at_delta"] as? [String: Any] ?? [:]).keys {
            guard let delta = Double(key) else { continue }
            epsilons[key] = try noise.epsilon(delta: delta, sensitivity: sensitivity)
        }
        let ratio = Double(sensitivity) / noise.scale
        return Result(values: [
            "variance": noise.variance, "pmf_at": masses, "rho_zcdp": ratio * ratio / 2, "epsilon_at_delta": epsilons,
        ])
    }

    private static func distributed(_ kind: String, _ p: Parameters, _ expected: [String: Any]) throws -> Result {
        let isSkellam = kind == "skellam"
        let clip = isSkellam ? try p.number("l2_clip") * p.number("scale") : try p.number("l2_clip") / p.number("gamma")
        let dimension = try p.integer("dim")
        let norms = RoundedNorms(clip: clip, beta: try p.number("beta"), dimension: dimension)
        var values: [String: any Sendable] = ["rounded_l2": norms.l2, "rounded_l1": norms.l1]
        let event: PrivacyEvent
        if isSkellam {
            let variance = try p.number("variance_local_grid_units") * p.number("n")
            values["total_variance"] = variance
            event = .skellam(SkellamMechanism(norms: norms, totalVariance: variance))
        } else {
            let mechanism = DistributedDiscreteGaussian(
                norms: norms,
                dimension: dimension,
                clientCount: try p.integer("n"),
                localScale: try p.number("sigma_local") / p.number("gamma")
            )
            values["tau"] = mechanism.tau
            event = .distributedDiscreteGaussian(mechanism)
        }
        let orders = (expected["rdp_orders"] as? [NSNumber] ?? []).map(\.doubleValue)
        values["rdp_orders"] = orders
        values["rdp_one_step"] = orders.map { RenyiAccountant.divergence(of: event, order: $0) }
        var accountant = RenyiAccountant(orders: (2...128).map { Double($0) } + [256])
        try accountant.add(event, count: try p.integer("steps"))
        values["epsilon"] = try accountant.epsilon(delta: p.number("delta"))
        return Result(values: values)
    }

    private static func shortfall(_ p: Parameters) throws -> Result {
        let planned = try p.number("planned_clients")
        let share = (planned - (try p.number("dropped"))) / planned
        let (z, steps) = (try p.number("planned_noise_multiplier"), try p.number("steps"))
        let delta = try p.number("delta")
        let actual = z * share.squareRoot()
        func epsilon(_ z: Double) -> Double {
            GaussianAccountant.epsilon(delta: delta, noiseMultiplier: z / steps.squareRoot())
        }
        return Result(values: [
            "effective_noise_multiplier": actual, "epsilon_planned": epsilon(z), "epsilon_actual": epsilon(actual),
            "per_client_std_factor": z / planned.squareRoot(),
        ])
    }

    private static func adaptiveClipping(_ p: Parameters) throws -> Result {
        let clipping = try AdaptiveClipping(
            initialNorm: p.number("initial_clip"),
            targetQuantile: p.number("target_quantile"),
            learningRate: p.number("learning_rate"),
            noiseMultiplier: p.number("target_noise_multiplier"),
            countNoise: p.number("sigma_b")
        )
        var trace = [clipping.initialNorm]
        for fraction in try p.numbers("noisy_unclipped_fractions") {
            trace.append(clipping.nextNorm(after: trace[trace.count - 1], unclippedFraction: fraction))
        }
        return Result(values: ["noise_multiplier_delta": clipping.updateNoiseMultiplier, "clip_trace": trace])
    }

    private static func bandedMatrix(_ p: Parameters) throws -> Result {
        let mechanism = try BandedMatrixMechanism(
            coefficients: p.numbers("strategy_coef"),
            roundCount: p.integer("n"),
            minSeparation: p.integer("min_sep"),
            maxParticipations: p.values["max_participations"] is NSNumber ? p.integer("max_participations") : nil
        )
        var accountant = GaussianCompositionAccountant()
        let z = try p.number("noise_std_over_clip")
        try accountant.add(.bandedMatrix(mechanism, noiseMultiplier: z))
        return Result(values: [
            "effective_participations": Double(mechanism.maxParticipations),
            "sensitivity_squared": mechanism.sensitivitySquared,
            "inverse_coef_first8": mechanism.inverseCoefficients(count: 8),
            "rho_zcdp": mechanism.sensitivitySquared / (2 * z * z),
            "epsilon": try accountant.epsilon(delta: p.number("delta")),
        ])
    }

    private static func tree(_ p: Parameters) throws -> Result {
        let (z, steps) = (try p.number("noise_multiplier_per_node"), try p.integer("steps"))
        let event = PrivacyEvent.tree(stepCount: steps, noiseMultiplier: z)
        let participations = p.number("participations", default: 1)
        return Result(values: [
            "depth": Double(TreeAggregation.depth(stepCount: steps)),
            "rdp": try p.numbers("orders").map { participations * RenyiAccountant.divergence(of: event, order: $0) },
            "rho_zcdp": participations * (event.gaussianInverseSquare ?? .nan) / 2,
        ])
    }

    private static func audit(_ p: Parameters) throws -> Result {
        let (canaries, guesses) = (try p.integer("canaries"), try p.integer("guesses"))
        let correct = try p.integer("correct")
        guard 0 <= correct, correct <= guesses, guesses <= canaries else {
            throw ReferenceVectors.FormatError(description: "correct <= guesses <= canaries does not hold")
        }
        let audit = OneRunAudit(canaryCount: canaries, guessCount: guesses, correctCount: correct)
        let delta = try p.number("delta")
        return Result(values: [
            "p_value": audit.pValue(epsilon: try p.number("epsilon"), delta: delta),
            "epsilon_lower_bound": audit.epsilonLowerBound(delta: delta, confidence: try p.number("confidence")),
        ])
    }
}
