import WireFormat

/// Answers of the server as lines for people; `--json` prints the answers themselves.
enum OperatorSentences {
    /// What a run is and what it waits for.
    static func run(_ run: RunView) -> [String] {
        let specification = run.specification
        return [
            "\(run.id) is \(run.state): \(Terminal.printable(run.name)), "
                + "\(Readable.count(specification.rounds, "round")) of \(specification.cohort.goal) updates",
            "waits for \(run.waitingFor)",
        ]
    }

    /// What comes after a run was made.
    static func next(_ run: RunView) -> String {
        run.state == .created
            ? "start it with: martlet run start \(run.id)" : "follow it with: martlet run watch \(run.id)"
    }

    static func population(_ population: PopulationView) -> [String] {
        let name = Terminal.printable(population.name)
        guard let budget = population.budget else { return ["\(name) (\(population.id)): no privacy budget"] }
        return [
            "\(name) (\(population.id)): epsilon \(number(budget.epsilon)) at delta \(budget.delta), "
                + "\(number(budget.spentEpsilon)) spent, \(number(budget.remainingEpsilon)) left"
        ] + (budget.claim.map { ["proven: \($0.terms(epsilon: number($0.epsilon))). \($0.protection)"] } ?? [])
    }

    /// What a run would do and cost.
    static func plan(_ plan: RunPlan) -> [String] {
        let specification = plan.specification
        let size = plan.parameterCount.map { ", \($0) parameters" } ?? ", weights uploaded later"
        var lines = [
            "would train:  \(specification.model.architecture)\(size)",
            "rounds:       \(specification.rounds) of \(specification.cohort.goal) updates; "
                + "the population has \(Readable.count(plan.clients, "client"))",
        ]
        if let up = plan.bytesUp, let down = plan.bytesDown {
            lines.append("traffic:      \(Readable.bytes(down)) down, \(Readable.bytes(up)) up, in all")
        }
        lines += plan.protection.map(protection) ?? []
        guard let privacy = plan.privacy else {
            lines.append("privacy:      none")
            lines += specification.aggregation.clientLimits.map { "one client:   \($0)" }
            return lines + plan.warnings.map { "warning:      \($0)" }
        }
        lines.append(
            "privacy:      epsilon \(number(privacy.epsilon)) at delta \(privacy.delta) (\(privacy.mode), "
                + "\(privacy.mechanism), z = \(number(privacy.noiseMultiplier)), "
                + "each client in at most \(Readable.count(privacy.participations, "round")))"
        )
        if let limit = privacy.budgetEpsilon {
            lines.append(
                "budget:       \(number(privacy.populationEpsilon ?? privacy.epsilon)) of \(number(limit)) spent afterwards; "
                    + "\(privacy.roundsThatFit) of \(privacy.rounds) rounds fit"
            )
        }
        let claim = privacy.claim
        lines.append("proven:       \(claim.terms(epsilon: number(claim.epsilon))), of all that is released")
        lines.append("against whom: \(privacy.claim.protection)")
        if let ratio = privacy.noiseToSignal {
            lines.append("noise:        \(number(ratio)) times the longest mean update, in a round")
        }
        return lines + plan.warnings.map { "warning:      \($0)" }
    }

    /// What a run's protection comes to.
    private static func protection(_ plan: ProtectionPlan) -> [String] {
        var lines = [
            "protection:   helper, domain \(plan.domain): \(plan.bits) bits a coordinate, \(Readable.bytes(plan.updateBytes)) an "
                + "update, sums of \(plan.minimum) to \(plan.maximum)",
            "largest:      \(number(plan.largestValue)) a coordinate, in steps of \(plan.step)",
        ]
        if let each = plan.epsilonOfEachParty, let readers = plan.epsilonOfReaders {
            lines.append(
                "who looks:    server epsilon \(number(each)), helper epsilon \(number(each)), readers of models epsilon "
                    + "\(number(readers)), server and helper together: nothing is promised"
            )
        } else {
            lines.append("who looks:    \(plan.claim)")
        }
        return lines
    }

    private static func number(_ value: Double) -> String {
        let text = Readable.rounded(value, 2)
        guard text.contains(".") else { return text }
        let short = text.reversed().drop { $0 == "0" }.drop { $0 == "." }
        return String(short.reversed())
    }
}
