import WireFormat

extension RunPlan {
    /// What a run would cost.
    ///
    /// - Parameters:
    ///   - specification: The run, as it would be stored.
    ///   - parameterCount: Of its model, if that is known.
    ///   - bytes: The size of the model's file.
    ///   - clientCount: Clients that the population has.
    ///   - projection: What it would cost the population's budget; `nil` without privacy.
    init(
        _ specification: RunSpecification,
        parameterCount: Int?,
        modelByteCount bytes: Int?,
        clientCount: Int,
        _ projection: PrivacyProjection?
    ) {
        let cohort = specification.cohort
        let assigned = Int((Double(cohort.goal) * cohort.overSelection).rounded(.up))
        self.init(
            specification: specification,
            parameterCount: parameterCount,
            modelBytes: bytes,
            bytesUp: bytes.map { Self.product($0, specification.rounds, cohort.goal) },
            bytesDown: bytes.map { Self.product($0, specification.rounds, assigned) },
            privacy: projection,
            clients: clientCount,
            clientLimits: specification.privacy.mode == .none ? specification.aggregation.clientLimits : [],
            warnings: []
        )
        warnings = warnings(assigned: assigned)
    }

    /// Says what the run's protection comes to: updates have another size, and a part of them may be cut.
    mutating func setProtection(_ plan: ProtectionPlan) {
        protection = plan
        bytesUp = Self.product(plan.updateBytes, specification.rounds, specification.cohort.goal)
        guard let share = plan.largestShare, share < 1 else { return }
        warnings.append(
            "a coordinate of an update is cut at \((share * 100).rounded() / 100) of the clipping norm, since \(plan.maximum) updates "
                + "with noise share \(plan.bits) bits: take protection.bits 64, or fewer clients"
        )
    }

    /// What an operator should know before the run is made.
    private func warnings(assigned: Int) -> [String] {
        let cohort = specification.cohort
        var warnings: [String] = []
        if let privacy, privacy.roundsThatFit < specification.rounds {
            warnings.append(
                "the budget admits \(privacy.roundsThatFit) of \(specification.rounds) rounds, then its \(privacy.endingPart ?? .epsilon) "
                    + "ends; the next one will be refused"
            )
        }
        if let ratio = privacy?.noiseToSignal, ratio > 1 {
            warnings.append(
                "the noise of a round is \((ratio * 10).rounded() / 10) times as long as the longest mean update: "
                    + "the run will learn little; more clients a round help"
            )
        }
        if clients < assigned {
            warnings.append("a round assigns up to \(assigned) clients, and the population has \(clients)")
        }
        let needed = Self.product(specification.rounds, cohort.goal, 1)
        let available = Self.product(clients, cohort.maxParticipations, 1)
        if cohort.maxParticipations > 0 && available < needed {
            warnings.append(
                "\(specification.rounds) rounds want \(needed) participations, and \(clients) clients that take part "
                    + "at most \(cohort.maxParticipations) times give \(available)"
            )
        }
        if specification.privacy.mode == .central, let data = specification.training.data,
            data.minimumRecords > 1 || data.minimumCharacters > 0
        {
            warnings.append(
                "devices with less than training.data asks for send zeros, which nobody can tell from updates; the divisor stays "
                    + "\(cohort.goal), so each of them makes the mean smaller by a \(cohort.goal)th: ask for no more than most have"
            )
        }
        if specification.hasPrivateEvaluation {
            let evaluation = specification.evaluation
            let wanted = Self.product(
                specification.evaluationCount(rounds: specification.rounds),
                evaluation.cohortGoal,
                1
            )
            let limit = evaluation.maxParticipations ?? 0
            if Self.product(clients, limit, 1) < wanted {
                warnings.append(
                    "the evaluations want \(wanted) participations, and \(clients) clients that take part at most "
                        + "\(limit) times give \(Self.product(clients, limit, 1)): later versions will not be measured"
                )
            }
        }
        return warnings
    }

    /// The product, or the largest number where it does not fit.
    private static func product(_ first: Int, _ second: Int, _ third: Int) -> Int {
        let (partial, overflow) = first.multipliedReportingOverflow(by: second)
        let (whole, secondOverflow) = partial.multipliedReportingOverflow(by: third)
        return overflow || secondOverflow ? .max : whole
    }
}
