import ArgumentParser
import Coordination
import Foundation
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
            let population = try WireCoding.decode(
                PopulationView.self,
                from: await access.call("GET", "/v1/populations/\(escaped(curves.run.population))")
            )
            let story = RunStory(curves: curves, population: population)
            if let round {
                guard curves.rounds.contains(where: { $0.number == round }) else {
                    throw Failure("run \(run) has no round \(round) yet; it has \(curves.rounds.last?.number ?? 0)")
                }
                struct Change: Decodable {
                    var attempt: Int
                    var at: String
                    var state: String
                    var cause: String
                }
                struct Page: Decodable { var items: [Change] }
                let data = try await access.call("GET", "/v1/runs/\(escaped(run))/rounds/\(round)/history")
                let changes = try WireCoding.decode(Page.self, from: data).items
                print(story.attempts(of: round).joined(separator: "\n"))
                for change in changes {
                    print("  \(change.at)  attempt \(change.attempt)  \(change.state): \(change.cause)")
                }
                return
            }
            for line in story.lines { print(line) }
        }
    }
}

/// A run told in sentences.
struct RunStory {
    let curves: RunCurves
    let population: PopulationView

    var lines: [String] {
        [beginning, terms] + rounds + [ending]
    }

    private var beginning: String {
        let run = curves.run
        return
            "\(Terminal.printable(run.name)) (\(run.id)) trains \(run.specification.model.architecture) on the clients of "
            + "'\(Terminal.printable(population.name))'. It was created at \(run.createdAt) and is \(run.state)"
            + (run.reason.map { " (\(Terminal.printable($0)))" } ?? "")
            + ": \(run.committedRounds) of \(Readable.count(run.specification.rounds, "round")) committed."
    }

    private var terms: String {
        let cohort = curves.run.specification.cohort
        let privacy = curves.run.specification.privacy
        var text = "A round wants \(cohort.goal) updates and needs \(cohort.minimum)."
        guard privacy.mode != "none" else {
            return text + " There are no privacy terms: updates are averaged as they come."
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
        let accuracy = Dictionary(curves.curve(RunCurves.accuracyNames).map { ($0.round, $0.value) }) { first, _ in
            first
        }
        return curves.rounds.filter { $0.number == number }.map { round in
            let name = round.attempt > 1 ? "Round \(number), attempt \(round.attempt)" : "Round \(number)"
            var text: String
            switch round.state {
            case "committed":
                text = "\(name) published model \(number) from \(Readable.count(round.accepted, "update")) after "
                text += "\(Readable.seconds(round.seconds)) (\(Readable.bytes(round.bytesUp)) came in)."
                if let value = accuracy[number] {
                    text += " Accuracy is \(change(from: accuracy[number - 1], to: value))."
                }
                if let epsilon = round.epsilon {
                    text += " It brought the population to epsilon \(self.number(epsilon))."
                }
            case "abandoned":
                text = "\(name) was given up after \(Readable.seconds(round.seconds)): "
                text += "\(round.reason ?? "no reason was recorded"). "
                text += "\(round.accepted) of at least \(round.minimum) updates had come."
                if curves.run.specification.privacy.mode == "central" {
                    text += " Nothing was published, so its reservation went back to the budget."
                }
            default:
                text = "\(name) is \(round.state), for \(Readable.seconds(round.seconds)) now: "
                text += "\(round.accepted) of \(round.goal) updates accepted. It waits for \(round.waitingFor)."
            }
            return text + losses(of: round)
        }
    }

    /// `0.431, up from 0.402`.
    private func change(from before: Double?, to value: Double) -> String {
        let text = number(value)
        guard let before else { return text }
        if number(before) == text { return text + " as before" }
        return "\(text), \(value > before ? "up" : "down") from \(number(before))"
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
        case "completed": "All rounds are committed; the last model is version \(curves.run.modelVersion ?? 0)."
        case "cancelled": "It was cancelled; models up to version \(curves.run.modelVersion ?? 0) stay."
        case "failed":
            "It failed and will not go on: \(Terminal.printable(curves.run.reason ?? "no reason was recorded"))."
        default: "Now it waits for \(curves.run.waitingFor)."
        }
    }

    private func number(_ value: Double) -> String { Readable.rounded(value, 3) }
    private func times(_ count: Int) -> String { count == 1 ? "once" : count == 2 ? "twice" : "\(count) times" }
}
