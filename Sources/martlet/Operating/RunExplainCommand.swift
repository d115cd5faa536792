import ArgumentParser
import MartletOperator
import WireFormat

extension RunCommand {
    struct Explain: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "What happened in each round and why, in sentences.",
            discussion: """
                    martlet run explain run_7f3a             every round
                    martlet run explain run_7f3a --round 3   one round, with each change of its state
                """
        )
        @OptionGroup var access: ServerAccess
        @Argument(help: "The run's id.") var run: String
        @Option(help: "Only this round, with its history.") var round: Int?

        func run() async throws {
            let curves = try await RunCurves.read(run, access)
            let population = try await access.ask { try await $0.population(curves.run.population) }
            let charges = try await chargeEndings(of: curves)
            let story = RunStory(
                curves: curves,
                population: population,
                chargeEndings: charges.endings,
                chargedApart: charges.apart
            )
            if let round {
                guard curves.rounds.contains(where: { $0.number == round }) else {
                    throw Failure("run \(run) has no round \(round) yet; it has \(curves.rounds.last?.number ?? 0)")
                }
                let changes = try await history(of: round)
                for line in story.attempts(of: round) + HistoryView.lines(changes, namesClients: !story.isSecret) {
                    print(Terminal.printable(line))
                }
                return
            }
            for line in story.lines { print(Terminal.printable(line)) }
        }

        /// What happened in a round, to it and to each assignment.
        private func history(of round: Int) async throws -> [HistoryView] {
            let target = Endpoints.roundHistory(RunReference(run), RoundReference(round)).with("assignments", true)
                .with("limit", 10_000)
            return try await access.ask { try await $0.items(of: target) }
        }

        /// What became of the charges of attempts that were given up, as the ledger says, and of which of them another row was charged.
        private func chargeEndings(
            of curves: RunCurves
        ) async throws -> (endings: [RunStory.Attempt: ChargeState], apart: Set<RunStory.Attempt>) {
            guard curves.run.specification.privacy.mode != .none,
                curves.rounds.contains(where: { $0.state == .abandoned })
            else { return ([:], []) }
            let target = Endpoints.populationLedger(PopulationReference(curves.run.population)).with("limit", 10_000)
            let all = try await access.ask { try await $0.items(of: target) }
            let rows = all.filter { $0.runId == curves.run.id }
            // A charge of its own has round 0, and the number of the row that gave the reservation up.
            let charged = Set(rows.filter { $0.round == 0 }.map(\.attempt))
            var endings: [RunStory.Attempt: ChargeState] = [:]
            var apart: Set<RunStory.Attempt> = []
            for row in rows {
                let attempt = RunStory.Attempt(
                    number: row.round,
                    attempt: row.attempt,
                    isEvaluation: row.isOfEvaluation
                )
                endings[attempt] = row.state
                if charged.contains(row.sequence) { apart.insert(attempt) }
            }
            return (endings, apart)
        }
    }
}

extension HistoryView {
    /// The round's changes one by one, then why work of its clients came to nothing, the commonest cause first.
    static func lines(_ changes: [HistoryView], namesClients: Bool) -> [String] {
        var lines = changes.filter { $0.assignment == nil }.map {
            "  \($0.at)  attempt \($0.attempt)  \($0.state): \($0.cause)"
        }
        guard namesClients else { return lines }
        var counts: [String: Int] = [:]
        for change in changes
        where change.assignment != nil && ["rejected", "failed", "expired"].contains(change.state) {
            counts["attempt \(change.attempt)  \(change.state): \(change.cause)", default: 0] += 1
        }
        for (cause, count) in counts.sorted(by: { ($1.value, $0.key) < ($0.value, $1.key) }) {
            lines.append("  \(Readable.count(count, "client"))  \(cause)")
        }
        return lines
    }
}

/// A run told in sentences.
struct RunStory {
    let curves: RunCurves
    let population: PopulationView
    /// The last state of each attempt's charge in the ledger.
    let chargeEndings: [Attempt: ChargeState]
    /// The attempts whose reservation went over to a charge of its own, because another server may have gone on with them.
    let chargedApart: Set<Attempt>

    /// One attempt at a round or an evaluation.
    struct Attempt: Hashable {
        var number: Int
        var attempt: Int
        var isEvaluation: Bool
    }

    /// Whether the claim needs that nobody learns how many were drawn: what this prints is passed on.
    var isSecret: Bool { curves.run.specification.privacy.hasSecretDraw }

    var lines: [String] {
        [beginning, terms] + rounds + [ending]
    }

    private var beginning: String {
        let run = curves.run
        return
            "\(run.name) (\(run.id)) trains \(run.specification.model.architecture) on the clients of "
            + "'\(population.name)'. It was created at \(run.createdAt) and is \(run.state)"
            + (run.reason.map { " (\($0))" } ?? "")
            + ": \(run.committedRounds) of \(Readable.count(run.specification.rounds, "round")) committed."
    }

    private var terms: String {
        let cohort = curves.run.specification.cohort
        let privacy = curves.run.specification.privacy
        var text = "A round wants \(cohort.goal) updates and needs \(cohort.minimum)."
        if let protection = curves.run.specification.protection {
            text +=
                " Updates are masked: the server sees their sums alone, with a helper's domain \(protection.domain)."
        }
        guard privacy.mode != .none else {
            let limits = curves.run.specification.aggregation.clientLimits
            return text + " There are no privacy terms. One client \(limits.joined(separator: ", and "))."
        }
        text += " Privacy is \(privacy.mode): each update is clipped to \(privacy.clipping.norm), noise has "
        text += "\(privacy.noiseMultiplier) times that"
        if cohort.maxParticipations > 0 {
            text += ", and a client takes part at most \(times(cohort.maxParticipations))"
        }
        text += "."
        if let budget = population.budget {
            text += " The population has spent epsilon \(number(budget.spentEpsilon)) of \(number(budget.epsilon)) "
            text += "at delta \(budget.delta)"
            text += budget.reservedEpsilon > 0 ? ", and \(number(budget.reservedEpsilon)) is reserved." : "."
            if let claim = budget.claim {
                text += " What is proven of everything that was released of it, by all its runs, and reserved: "
                text += "\(claim.terms(epsilon: number(claim.epsilon))). \(claim.protection)"
            }
        }
        return text
    }

    private var rounds: [String] {
        var lines: [String] = []
        for number in Set(curves.rounds.map(\.number)).sorted() { lines += attempts(of: number) }
        return lines.isEmpty ? ["No round has opened yet."] : lines
    }

    /// A sentence or two for each attempt at a round.
    func attempts(of number: Int) -> [String] {
        let curve = curves.curve(RunCurves.accuracyNames)
        let accuracy = Dictionary((curve?.points ?? []).map { ($0.round, $0.value) }) { first, _ in first }
        return curves.rounds.filter { $0.number == number }.map { round in
            let name = round.attempt > 1 ? "Round \(number), attempt \(round.attempt)" : "Round \(number)"
            var text: String
            switch round.state {
            case .committed:
                text = "\(name) published model \(number)"
                text += isSecret ? "" : " from \(Readable.count(round.accepted, "update"))"
                text += " after \(Readable.seconds(round.seconds))"
                text += round.bytesUp.map { " (\(Readable.bytes($0)) came in)." } ?? "."
                text += held(round)
                if let value = accuracy[number] {
                    text += " Accuracy is \(change(from: accuracy[number - 1], to: value))\(curve?.note ?? "")."
                }
                if let epsilon = round.epsilon {
                    text += " It brought the population to epsilon \(self.number(epsilon))."
                }
            case .abandoned:
                text = "\(name) was given up after \(Readable.seconds(round.seconds)): "
                text += "\(round.reason ?? "no reason was recorded"). "
                text += isSecret ? "" : "\(round.accepted) of at least \(round.minimum) updates had come."
                text += chargeEnding(of: round)
            case .selecting, .reporting, .aggregating:
                text = "\(name) is \(round.state), for \(Readable.seconds(round.seconds)) now: "
                text +=
                    isSecret
                    ? "it lasts until its deadline, and who was drawn is secret."
                    : "\(round.accepted) of \(round.goal) updates accepted. It waits for \(round.waitingFor)."
            }
            return text + (isSecret ? "" : losses(of: round))
        }
    }

    /// What became of the charge of an attempt that was given up.
    private func chargeEnding(of round: RoundView) -> String {
        let attempt = Attempt(
            number: round.number,
            attempt: round.attempt,
            isEvaluation: round.kind == .evaluation
        )
        switch chargeEndings[attempt] {
        case .released where chargedApart.contains(attempt):
            return " Nothing was published here. Another server may have gone on with it after a backup, so the "
                + "ledger charges it in a row of its own."
        case .released: return " Nothing was published, so its reservation went back to the budget."
        case .committed:
            return
                " Nothing was published, but its charge stays: something that depends on data may have been released."
        case .reserved: return " Its charge is still reserved."
        case nil: return ""
        }
    }

    /// `0.431, up from 0.402`.
    private func change(from before: Double?, to value: Double) -> String {
        let text = number(value)
        guard let before else { return text }
        if number(before) == text { return text + " as before" }
        return "\(text), \(value > before ? "up" : "down") from \(number(before))"
    }

    /// Whose weight or update was cut.
    private func held(_ round: RoundView) -> String {
        var parts: [String] = []
        if let count = round.cappedWeights, count > 0 {
            let cap = round.weightCap.map { " of \($0)" } ?? ""
            parts.append("\(Readable.count(count, "client")) weighed no more than the cap\(cap)")
        }
        if let count = round.cappedNorms, count > 0 {
            let bound = round.normBound.map { " of \(self.number($0))" } ?? ""
            parts.append("\(Readable.count(count, "update")) were scaled down to the norm bound\(bound)")
        }
        return parts.isEmpty ? "" : " Of these, " + parts.joined(separator: "; ") + "."
    }

    /// Who did not deliver, and why.
    private func losses(of round: RoundView) -> String {
        var text = ""
        let missing = round.rejected + round.failed + round.expired
        guard missing > 0 else { return text }
        text = " \(Readable.count(missing, "client")) did not deliver"
        let reasons = round.refusals.sorted { ($1.value, $0.key) < ($0.value, $1.key) }.map { "\($0.value) \($0.key)" }
        let late = round.expired > 0 ? ["\(round.expired) too late"] : []
        let all = reasons + late
        return text + (all.isEmpty ? "." : ": \(all.joined(separator: ", ")).")
    }

    private var ending: String {
        switch curves.run.state {
        case .completed: "All rounds are committed; the last model is version \(curves.run.modelVersion ?? 0)."
        case .cancelled: "It was cancelled; models up to version \(curves.run.modelVersion ?? 0) stay."
        case .failed:
            "It failed and will not go on: \(curves.run.reason ?? "no reason was recorded")."
        case .created, .running, .paused:
            isSecret ? "Now it waits for its round's deadline." : "Now it waits for \(curves.run.waitingFor)."
        }
    }

    private func number(_ value: Double) -> String { Readable.rounded(value, 3) }
    private func times(_ count: Int) -> String { count == 1 ? "once" : count == 2 ? "twice" : "\(count) times" }
}
