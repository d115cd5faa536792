import ArgumentParser
import Foundation
import LocalTraining
import StrictJSON
import Tensors

/// Opens a model for commands that use one on this machine.
struct ModelOptions: ParsableArguments {
    @Option(help: "A model directory, or a weights file of a character model.") var model: String
    @Option(help: "With a weights file: the model's alphabet, where it is not the default one.")
    var alphabet = CharacterTokenizer.messages

    /// The model as a directory holds it.
    func open() throws -> ModelDirectory {
        try Failure.explaining(model) {
            var isDirectory: ObjCBool = false
            guard FileManager.default.fileExists(atPath: model, isDirectory: &isDirectory) else {
                throw Failure("there is no file or directory \(model)")
            }
            if isDirectory.boolValue { return try ModelDirectory(reading: model) }
            let vector = try WeightsFile.read(model)
            guard let sizes = CIFGLSTMConfiguration(layout: vector.layout) else {
                throw Failure("\(model) is not a CIFG-LSTM; give the directory with its config.json")
            }
            let json = JSONText.object([
                ("embedding_dim", String(sizes.embeddingDimension)), ("hidden_dim", String(sizes.hiddenDimension)),
                ("alphabet", JSONText.quoted(alphabet)),
            ])
            let description = ModelDescription(architecture: "cifg-lstm", config: json)
            guard try ModelArchitectures.make(description).layout == vector.layout else {
                throw Failure("\(model) has \(sizes.vocabularySize) symbols, the alphabet gives another number")
            }
            return ModelDirectory(description: description, model: vector)
        }
    }

    /// The model's architecture, if it predicts text.
    func language(_ directory: ModelDirectory) throws -> any LanguageArchitecture {
        guard let language = try ModelArchitectures.make(directory.description) as? any LanguageArchitecture else {
            throw Failure("\(model) is a \(directory.description.architecture) model, not one of language")
        }
        return language
    }
}

extension Failure {
    /// Runs `body`, and puts what went wrong with a model or its data into one sentence.
    static func explaining<Result>(_ subject: String, _ body: () throws -> Result) throws -> Result {
        do {
            return try body()
        } catch let error as SafetensorsError {
            throw Failure("\(subject): \(error.description)")
        } catch let error as ModelConfigurationError {
            throw Failure("\(subject): config.json \(error.pointer): \(error.reason)")
        } catch let error as TokenizerError {
            throw Failure("\(subject): \(error.description)")
        } catch let error as LocalTrainingError {
            throw Failure("\(subject): \(error.ownerSentence)")
        }
    }
}
