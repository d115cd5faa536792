import ArgumentParser
import Foundation
import LocalTraining
import MartletOperator
import StrictJSON
import Tensors
import WireFormat

struct ExportCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "export",
        abstract: "Write a model as a directory: for suggest, for transformers and peft, or in eight bits for devices.",
        discussion: """
            martlet export --run RUN --output DIR                  a run's latest model, from the server
            martlet export --model DIR --int8 --output DIR8        a quarter of the bytes
            martlet export --model DIR --merge --output MERGED     adapters added into their base
            """
    )

    @OptionGroup var access: ServerAccess
    @Option(help: "A run whose model is fetched from the server.") var run: String?
    @Option(help: "The model's version: a number or latest.") var version = "latest"
    @Option(help: "In place of a run: a model directory, or a weights file of a character model.") var model: String?
    @Option(help: "The directory to write.") var output: String
    @Flag(help: "Eight bits a weight, with a scale for each row.") var int8 = false
    @Flag(help: "Write adapters and base as one model.") var merge = false
    @Option(help: "With --int8: a text on which the loss of top-1 recall is measured; over 0.2 points is an error.")
    var check: String?

    func validate() throws {
        guard (run == nil) != (model == nil) else { throw ValidationError("give --run or --model, and not both") }
        guard check == nil || int8 else { throw ValidationError("--check goes with --int8") }
    }

    func run() async throws {
        var directory: ModelDirectory
        if let model {
            directory = try ModelOptions.parse(["--model", model]).open()
        } else {
            directory = try await fetched(run ?? "")
        }
        let subject = model ?? run ?? ""
        try Failure.explaining(subject) {
            if merge { directory = try directory.merged() }
            try directory.write(to: output, int8: int8)
        }
        if let check {
            try Failure.explaining(subject) { try checkRecall(of: directory, on: check) }
        }
        if !access.json { print(output) }
    }

    private func fetched(_ run: String) async throws -> ModelDirectory {
        let reference = RunReference(run)
        let view = try await access.answer(to: Endpoints.run(reference)).decoded()
        guard let description = try BuiltInModels.description(view.specification.model) else {
            let weights = Endpoints.weights(reference, VersionReference(version))
            throw Failure("run \(run) has an external model: its weights are at \(weights.path)")
        }
        let weights = try await tensors(reference, VersionReference(version))
        var base: ParameterVector?
        if let given = view.specification.model.base {
            base = try await tensors(RunReference(given.run), VersionReference(given.version ?? 0))
        }
        return ModelDirectory(description: description, model: weights, base: base)
    }

    private func tensors(_ run: RunReference, _ version: VersionReference) async throws -> ParameterVector {
        let model = Endpoints.model(run, version)
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("martlet-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: file) }
        try await access.ask { client in
            try await client.downloadModel(client.answer(to: model).decoded(), to: file.path)
        }
        return try Failure.explaining(model.path) { try SafetensorsFile(path: file.path).readAll() }
    }

    /// The written file's top-1 recall against the model's, on one text.
    private func checkRecall(of directory: ModelDirectory, on path: String) throws {
        guard let language = try ModelArchitectures.make(directory.description) as? any LanguageArchitecture else {
            throw Failure("--check is for language models")
        }
        let trainer = LanguageTrainer(architecture: language, texts: try DataFiles.texts(at: path, field: "text"))
        let written = try ModelDirectory(reading: output)
        let before = try trainer.evaluate(model: directory.model, base: directory.base).accuracy
        let after = try trainer.evaluate(model: written.model, base: written.base).accuracy
        let line = String(format: "top-1 %.2f %% in 32 bits, %.2f %% in 8 bits", 100 * before, 100 * after)
        guard after >= before - 0.002 else { throw Failure(line + ": more than 0.2 points are lost") }
        let fields = [("before", JSONText.number(before)), ("after", JSONText.number(after))]
        print(access.json ? JSONText.object(fields) : line)
    }
}
