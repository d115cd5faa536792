import ArgumentParser
import Foundation
import LocalTraining
import Tensors

struct SuggestCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "suggest",
        abstract: "The words with which a text may go on."
    )

    @Option(help: "A model file.") var model: String
    @Option(help: "The text so far.") var text: String
    @Option(name: .shortAndLong, help: "How many suggestions.") var k = 3
    @Option(help: "The model's alphabet, where it is not the default one.") var alphabet = CharacterTokenizer.messages
    @Flag(help: "Print JSON.") var json = false

    func run() throws {
        do {
            let vector = try SafetensorsFile(path: model).readAll()
            guard let configuration = CIFGLSTMConfiguration(layout: vector.layout) else {
                throw Failure("\(model) is not a CIFG-LSTM")
            }
            var suggester = try TextSuggester(
                configuration: configuration,
                tokenizer: CharacterTokenizer(alphabet: alphabet),
                model: vector
            )
            let suggestions = suggester.suggest(after: text, count: k)
            if json {
                let items = suggestions.map { "{\"word\":\"\($0.word)\",\"p\":\($0.probability)}" }
                print("[\(items.joined(separator: ","))]")
            } else {
                for item in suggestions { print(item.word) }
            }
        } catch let error as SafetensorsError {
            throw Failure("\(model): \(error.description)")
        }
    }
}
