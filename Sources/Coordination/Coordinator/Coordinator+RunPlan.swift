package import Tensors
package import WireFormat

extension Coordinator {
    /// Checks a specification as ``createRun(_:initialModel:)`` does, stores nothing, and says what the run would cost.
    package func planRun(_ specification: RunSpecification, initialModel: ParameterVector?) throws -> RunPlan {
        let (specification, population) = try checkedRun(specification, initialModel: initialModel)
        let count = initialModel?.layout.parameterCount
        let bytes = initialModel.map {
            SafetensorsWriter.header(for: $0.layout, metadata: [:]).count + 4 * $0.values.count
        }
        let cohort = specification.cohort
        let assigned = Int((Double(cohort.goal) * cohort.overSelection).rounded(.up))
        let clients = presentCount(population: population.id)
        var plan = RunPlan(
            specification: specification,
            parameterCount: count,
            modelBytes: bytes,
            bytesUp: bytes.map { Self.product($0, specification.rounds, cohort.goal) },
            bytesDown: bytes.map { Self.product($0, specification.rounds, assigned) },
            privacy: specification.privacy.mode == .none
                ? nil : try projection(of: specification, parameterCount: count),
            clients: clients,
            clientLimits: specification.privacy.mode == .none ? specification.aggregation.clientLimits : [],
            warnings: []
        )
        plan.warnings = warnings(plan, assigned: assigned)
        return plan
    }

    private func warnings(_ plan: RunPlan, assigned: Int) -> [String] {
        let specification = plan.specification
        let cohort = specification.cohort
        var warnings: [String] = []
        if let privacy = plan.privacy, privacy.roundsThatFit < specification.rounds {
            warnings.append(
                "the budget admits \(privacy.roundsThatFit) of \(specification.rounds) rounds, then its \(privacy.endingPart ?? .epsilon) "
                    + "ends; the next one will be refused"
            )
        }
        if let ratio = plan.privacy?.noiseToSignal, ratio > 1 {
            warnings.append(
                "the noise of a round is \((ratio * 10).rounded() / 10) times as long as the longest mean update: "
                    + "the run will learn little; more clients a round help"
            )
        }
        if plan.clients < assigned {
            warnings.append("a round assigns up to \(assigned) clients, and the population has \(plan.clients)")
        }
        let needed = Self.product(specification.rounds, cohort.goal, 1)
        let available = Self.product(plan.clients, cohort.maxParticipations, 1)
        if cohort.maxParticipations > 0 && available < needed {
            warnings.append(
                "\(specification.rounds) rounds want \(needed) participations, and \(plan.clients) clients that take part "
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
            if Self.product(plan.clients, limit, 1) < wanted {
                warnings.append(
                    "the evaluations want \(wanted) participations, and \(plan.clients) clients that take part at most "
                        + "\(limit) times give \(Self.product(plan.clients, limit, 1)): later versions will not be measured"
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
