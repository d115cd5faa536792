import ArgumentParser
import Foundation
import LocalTraining
import Tensors

struct PersonalizeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "personalize",
        abstract: "Fit a private copy of a model to your own text; nothing leaves this machine.",
        discussion: """
            Writes a model directory with a cache of your words and, if that makes the held-out fifth of the text easier \
            to guess, weights that took some local steps. `martlet suggest --model OUTPUT` uses both.
            """
    )

    @OptionGroup var options: ModelOptions
    @Option(help: "Your text: TXT, JSONL or CSV.") var data: String
    @Option(help: "The field or column with the text.") var field = "text"
    @Option(help: "The directory to write.") var output: String
    @Option(help: "What is trained: all, or output-bias.") var scope = "all"
    @Option(help: "Optimiser steps, at most.") var steps = 100
    @Option(help: "The step size.") var learningRate = 0.5
    @Flag(help: "Print JSON.") var json = false

    func validate() throws {
        guard Personalizer.Scope(rawValue: scope) != nil else {
            throw ValidationError(
                "--scope is one of \(Personalizer.Scope.allCases.map(\.rawValue).joined(separator: ", "))"
            )
        }
    }

    func run() throws {
        let directory = try options.open()
        let language = try options.language(directory)
        let texts = TextCleaner().clean(try DataFiles.texts(at: data, field: field)).records
        try Failure.explaining(data) {
            let personalizer = Personalizer(architecture: language, base: directory.base)
            let outcome = try personalizer.personalize(
                directory.model,
                texts: texts,
                scope: Personalizer.Scope(rawValue: scope) ?? .all,
                instructions: TrainingInstructions(
                    learningRate: learningRate,
                    batchSize: 4,
                    epochs: 3,
                    maxSteps: steps,
                    seed: 1
                )
            )
            let suggester = try Suggester(architecture: language, model: outcome.model, base: directory.base)
            let cache = PersonalCache.fitted(to: texts, suggester: suggester)
            var personal = directory
            personal.model = outcome.model
            try personal.write(to: output)
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys]
            try encoder.encode(cache).write(to: URL(fileURLWithPath: output + "/personal-cache.json"), options: .atomic)
            print(
                json
                    ? "{\"before\":\(outcome.before),\"after\":\(outcome.after),\"kept\":\(outcome.isKept),"
                        + "\"cache_weight\":\(cache.weight),\"cache_words\":\(cache.counts.count)}"
                    : String(
                        format: "top-1 on held-out text %.1f %% before, %.1f %% after local steps (%@); "
                            + "cache of %d words, weight %.2f",
                        100 * outcome.before,
                        100 * outcome.after,
                        outcome.isKept ? "kept" : "not kept",
                        cache.counts.count,
                        cache.weight
                    )
            )
        }
    }
}
