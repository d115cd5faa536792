import BenchmarkHarness
import Foundation
import StrictJSON

/// One way to train: what a run file says, and how many of the clients lie.
struct LearningCase: Sendable {
    var name: String
    var rounds: Int
    /// Model versions that are judged.
    var measured: [Int]
    /// Updates a round.
    var goal: Int
    /// Updates that are enough after some were excluded; `nil` for the goal.
    var minimum: Int?
    /// The run file's sections, as JSON objects.
    var training: String
    var aggregation: String
    var privacy = "{}"
    /// The task's name; one experiment may have several.
    var task: LearningTaskName
    /// How much of the population sends what harms: minus five times its own change.
    var poisonedShare = 0.0
    /// Seeds for which it is run; `nil` for all that are asked for.
    var seeds: [UInt64]?

    /// Whether the population must have a budget.
    var isPrivate: Bool { privacy != "{}" }

    /// The run file.
    func runFile(population: String, model: String, clientCount: Int, seed: UInt64) throws -> Data {
        var model = try object(model)
        model["initialization"] = ["seed": String(seed)]
        var cohort: [String: Any] = [
            "goal": goal, "minimum": minimum ?? goal, "over_selection": 1.0, "report_timeout_s": 3600,
        ]
        let privacy = try object(privacy)
        if isPrivate { cohort["max_participations"] = (rounds * goal + clientCount - 1) / clientCount + 1 }
        let document: [String: Any] = [
            "name": "\(name), seed \(seed)", "population": population, "model": model, "rounds": rounds,
            "cohort": cohort,
            "training": try object(training), "aggregation": try object(aggregation), "privacy": privacy,
        ]
        return try Self.data(document)
    }

    /// A document of the server's as it is sent.
    static func data(_ document: [String: Any]) throws -> Data {
        guard let tree = JSONValue(foundation: document) else {
            throw BenchmarkError("a document holds what JSON has no word for")
        }
        return Data(tree.text.utf8)
    }

    private func object(_ text: String) throws -> [String: Any] {
        guard let object = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any] else {
            throw BenchmarkError("case \(name): not a JSON object: \(text.prefix(100))")
        }
        return object
    }
}

/// The tasks by name; each is read once.
enum LearningTaskName: String, Sendable {
    case shakespeareCharacters, shakespeareWords, tangCharacters, tangBytePairs

    func read(_ directory: String) throws -> LearningTask {
        switch self {
        case .shakespeareCharacters: try .shakespeareCharacters(directory)
        case .shakespeareWords: try .shakespeareWords(directory)
        case .tangCharacters: try .tangCharacters(directory)
        case .tangBytePairs: try .tangBytePairs(directory)
        }
    }
}

/// Cases that answer one question together.
struct LearningExperiment: Sendable {
    /// The file's name in `docs/results`.
    var name: String
    var cases: [LearningCase]
    /// At most eight cases by name, drawn over each other; empty for all.
    var drawn: [String] = []
}
