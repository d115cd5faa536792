import ArgumentParser
import Foundation
import LocalTraining
import StrictJSON
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
    @Option(help: "What is trained: all, or output-bias.") var scope = Personalizer.Scope.all.rawValue
    @Option(help: "Optimiser steps, at most.") var steps = 100
    @Option(help: "The step size.") var learningRate = 0.5
    @Flag(help: "Print JSON.") var json = false

    func validate() throws {
        guard wantedScope != nil else {
            throw ValidationError(
                "--scope is one of \(Personalizer.Scope.allCases.map(\.rawValue).joined(separator: ", "))"
            )
        }
    }

    private var wantedScope: Personalizer.Scope? { Personalizer.Scope(rawValue: scope) }

    func run() throws {
        guard let wantedScope else { preconditionFailure("validate() refuses other words") }
        let directory = try options.open()
        let language = try options.language(directory)
        let texts = TextCleaner().clean(try DataFiles.texts(at: data, field: field)).records
        try Failure.explaining(data) {
            let personalizer = Personalizer(architecture: language, base: directory.base)
            let outcome = try personalizer.personalize(
                directory.model,
                texts: texts,
                scope: wantedScope,
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
            try JSONValue(encoding: cache).text
                .write(toFile: output + "/personal-cache.json", atomically: true, encoding: .utf8)
            print(
                json
                    ? JSONText.object([
                        ("before", JSONText.number(outcome.before)), ("after", JSONText.number(outcome.after)),
                        ("kept", String(outcome.isKept)), ("cache_weight", JSONText.number(cache.weight)),
                        ("cache_words", String(cache.counts.count)),
                    ])
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
