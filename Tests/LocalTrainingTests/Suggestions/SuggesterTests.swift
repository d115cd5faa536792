import Foundation
import LocalTraining
import Tensors
import Testing

struct SuggesterTests {
    private static let sentences = [
        "i love you so much", "i love coffee in the morning", "i love you and you know it", "you are the best friend",
        "see you in the morning", "the best coffee is here",
    ]

    private func language(_ architecture: String, _ config: String) throws -> any LanguageArchitecture {
        try #require(
            try ModelArchitectures.make(.init(architecture: architecture, config: config)) as? any LanguageArchitecture
        )
    }

    private func words(_ extra: String = "") throws -> any LanguageArchitecture {
        let vocabulary = WordTokenizer.vocabulary(of: Self.sentences, size: 40)
        let json = String(decoding: try JSONEncoder().encode(vocabulary + ["<url>", "You"]), as: UTF8.self)
        return try language(
            "cifg-lstm",
            #"{"embedding_dim": 12, "hidden_dim": 16, "tokenizer": {"type": "word", "vocabulary": \#(json)}\#(extra)}"#
        )
    }

    private func characters() throws -> any LanguageArchitecture {
        try language("cifg-lstm", #"{"embedding_dim": 12, "hidden_dim": 32}"#)
    }

    private func bytePairs() throws -> any LanguageArchitecture {
        var trainer = BPETrainer()
        for sentence in Self.sentences { trainer.add(sentence) }
        let file = String(decoding: trainer.train(vocabularySize: 290).huggingFaceJSON(), as: UTF8.self)
        let json = String(decoding: try JSONEncoder().encode(file), as: UTF8.self)
        return try language(
            "decoder",
            """
            {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
             "tokenizer": {"type": "bpe", "tokenizer": \(json)}}
            """
        )
    }

    private func trained(
        _ architecture: any LanguageArchitecture,
        rate: Double,
        adam: Bool = false
    ) throws -> ParameterVector {
        var model = architecture.initialParameters(seed: 1)
        let trainer = LanguageTrainer(architecture: architecture, texts: Self.sentences)
        let optimizer = LocalOptimizerSettings(rule: adam ? .adam : .sgd, learningRate: rate)
        let delta = try trainer.train(
            model: model,
            instructions: TrainingInstructions(optimizer: optimizer, batchSize: 2, epochs: 150, seed: 3)
        ).delta
        VectorKernels.axpy(1, delta.values, into: &model.values)
        return model
    }

    @Test func wordsAreSuggestedCompletedBlockedAndMerged() throws {
        let architecture = try words()
        let model = try trained(architecture, rate: 2)
        let suggester = try Suggester(architecture: architecture, model: model)
        let next = suggester.suggest(after: "i love ", count: 5)
        #expect(Set(next.prefix(2).map(\.word)) == ["you", "coffee"])
        #expect(zip(next, next.dropFirst()).allSatisfy { $0.probability >= $1.probability })
        #expect(next.allSatisfy { !$0.word.hasPrefix("<") })
        #expect(suggester.suggest(after: "i love co", count: 3).first?.word == "coffee")
        #expect(suggester.suggest(after: "i love ", prefix: "Yo", count: 3).map(\.word) == ["you"])
        #expect(suggester.suggest(after: "i love zz", count: 3).isEmpty)
        // "You" and "you" are one suggestion.
        #expect(suggester.suggest(after: "i love ", count: 100).filter { $0.word.lowercased() == "you" }.count == 1)
        let polite = try Suggester(architecture: architecture, model: model, blocklist: ["YOU"])
        #expect(!polite.suggest(after: "i love ", count: 100).contains { $0.word.lowercased() == "you" })
    }

    @Test func goingOnGivesTheSameAsStartingAnew() throws {
        for architecture in [try words(), try characters(), try bytePairs()] {
            let model = architecture.initialParameters(seed: 5)
            let kept = try Suggester(architecture: architecture, model: model)
            let text = "you are the best friend in the morning"
            for end in stride(from: 0, through: text.count, by: 5) {
                let part = String(text.prefix(end))
                let fresh = try Suggester(architecture: architecture, model: model)
                let (left, right) = (kept.suggest(after: part, count: 3), fresh.suggest(after: part, count: 3))
                #expect(left.map(\.word) == right.map(\.word))
                #expect(zip(left, right).allSatisfy { abs($0.probability - $1.probability) < 1e-5 })
            }
        }
    }

    @Test func charactersAreSearchedToTheEndOfTheWord() throws {
        let architecture = try characters()
        let suggester = try Suggester(
            architecture: architecture,
            model: try trained(architecture, rate: 0.01, adam: true)
        )
        let next = suggester.suggest(after: "i love ", count: 2).map(\.word)
        #expect(Set(next) == ["you", "coffee"])
        #expect(suggester.suggest(after: "see you in the mor", count: 1).map(\.word) == ["morning"])
        #expect(suggester.suggest(after: "i love ", count: 100).reduce(0) { $0 + $1.probability } <= 1.000_01)
    }

    @Test func bytePairsAreSearchedToTheEndOfTheWord() throws {
        let architecture = try bytePairs()
        let suggester = try Suggester(
            architecture: architecture,
            model: try trained(architecture, rate: 0.02, adam: true)
        )
        #expect(Set(suggester.suggest(after: "i love ", count: 2).map(\.word)) == ["you", "coffee"])
        #expect(suggester.suggest(after: "see you in the mor", count: 1).map(\.word) == ["morning"])
        #expect(suggester.suggest(after: "i love", prefix: "", count: 3).allSatisfy { $0.word.first != " " })
    }

    @Test func theUsersWordsComeFromTheCache() throws {
        let architecture = try words()
        let suggester = try Suggester(architecture: architecture, model: try trained(architecture, rate: 2))
        let own = (0..<10).map { _ in "i love zebras and you" }
        let cache = PersonalCache.fitted(to: own, suggester: suggester)
        #expect(cache.weight == 0.2)
        #expect(cache.counts["zebras"] == 10)
        suggester.cache = cache
        #expect(suggester.suggest(after: "i love ze", count: 3).map(\.word) == ["zebras"])
        // Texts as the model knows them need no cache.
        suggester.cache = nil
        let same = PersonalCache.fitted(to: Array(repeating: "i love you so much", count: 5), suggester: suggester)
        #expect(same.weight < 0.2)
    }

    @Test func aPrivateCopyIsKeptOnlyIfItHelps() throws {
        let architecture = try words()
        let model = try trained(architecture, rate: 2)
        let personalizer = Personalizer(architecture: architecture, base: nil)
        var instructions = TrainingInstructions(learningRate: 0.5, batchSize: 2, epochs: 20, seed: 1)
        let own = (0..<10).map { _ in "coffee you morning best" }
        let better = try personalizer.personalize(model, texts: own, scope: .all, instructions: instructions)
        #expect(better.isKept && better.after > better.before && better.model != model)
        let bias = try personalizer.personalize(model, texts: own, scope: .outputBias, instructions: instructions)
        if bias.isKept {
            let changed = bias.model.layout.tensors.map(\.name).filter { name in
                bias.model[name].map(Array.init) != model[name].map(Array.init)
            }
            #expect(changed == ["output.bias"])
        }
        instructions.optimizer.learningRate = 1e-6
        let useless = try personalizer.personalize(model, texts: own, scope: .all, instructions: instructions)
        #expect(!useless.isKept && useless.model == model)
        #expect(throws: LocalTrainingError.noData) {
            try personalizer.personalize(model, texts: ["one"], scope: .all, instructions: instructions)
        }
    }

    @Test func foreignModelsAreRefused() throws {
        let architecture = try words()
        let other = CIFGLSTMConfiguration(vocabularySize: 9, embeddingDimension: 4, hiddenDimension: 4)
        #expect(throws: LocalTrainingError.self) {
            try Suggester(architecture: architecture, model: other.initialParameters(seed: 1))
        }
    }

    @Test func directoriesKeepEveryKindOfModel() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("models-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: folder) }
        for (index, architecture) in [try words(), try characters(), try bytePairs()].enumerated() {
            let description = try description(of: index)
            let directory = ModelDirectory(description: description, model: architecture.initialParameters(seed: 7))
            let path = folder + "/\(index)"
            try directory.write(to: path)
            let copy = try ModelDirectory(reading: path)
            #expect(copy.model == directory.model)
            #expect(
                try language(copy.description).tokenizer.encode("i love you")
                    == architecture.tokenizer.encode("i love you")
            )
            // Save, load, save: equal bytes.
            try copy.write(to: path + "-again")
            for name in try FileManager.default.contentsOfDirectory(atPath: path) {
                let (first, second) = (path + "/" + name, path + "-again/" + name)
                #expect(FileManager.default.contents(atPath: first) == FileManager.default.contents(atPath: second))
            }
        }
    }

    private func language(_ description: ModelDescription) throws -> any LanguageArchitecture {
        try language(description.architecture, description.config)
    }

    private func description(of index: Int) throws -> ModelDescription {
        let vocabulary = WordTokenizer.vocabulary(of: Self.sentences, size: 40)
        let words = String(decoding: try JSONEncoder().encode(vocabulary + ["<url>", "You"]), as: UTF8.self)
        var trainer = BPETrainer()
        for sentence in Self.sentences { trainer.add(sentence) }
        let file = String(decoding: trainer.train(vocabularySize: 290).huggingFaceJSON(), as: UTF8.self)
        let pairs = String(decoding: try JSONEncoder().encode(file), as: UTF8.self)
        return [
            ModelDescription(
                architecture: "cifg-lstm",
                config:
                    #"{"embedding_dim": 12, "hidden_dim": 16, "tokenizer": {"type": "word", "vocabulary": \#(words)}}"#
            ),
            ModelDescription(architecture: "cifg-lstm", config: #"{"embedding_dim": 12, "hidden_dim": 32}"#),
            ModelDescription(
                architecture: "decoder",
                config: """
                    {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
                     "tokenizer": {"type": "bpe", "tokenizer": \(pairs)}}
                    """
            ),
        ][index]
    }

    @Test func adaptersAreFilesOfTheirOwnAndMerge() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("adapters-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let plain = #"{"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}"#
        let adapted = plain.dropLast() + #", "lora": {"r": 2, "train": "b"}}"#
        let base = try language("decoder", plain).initialParameters(seed: 1)
        var model = try language("decoder", String(adapted)).initialParameters(seed: 2)
        for index in model.values.indices { model.values[index] = 0.1 * sin(Float(index)) }
        let directory = ModelDirectory(
            description: .init(architecture: "decoder", config: String(adapted)),
            model: model,
            base: base
        )
        try directory.write(to: folder)
        let copy = try ModelDirectory(reading: folder)
        #expect(copy.base == base)
        #expect(copy.model.layout.tensors.contains { $0.name.hasSuffix("q_proj.lora_A.weight") })
        let merged = try directory.merged()
        let batch = TokenBatch(steps: 3, rows: 1, inputs: [5, 9, 20], targets: [-1, -1, -1])
        let scores = try [directory, copy, merged].map {
            try language($0.description).makeNetwork(model: $0.model, base: $0.base).scores(batch)
        }
        for other in scores[1...] {
            for (left, right) in zip(scores[0], other) { #expect(abs(left - right) < 1e-5) }
        }
    }

    @Test func eightBitsLoseLittle() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("int8-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let architecture = try characters()
        let model = try trained(architecture, rate: 0.01, adam: true)
        let directory = ModelDirectory(description: try description(of: 1), model: model)
        try directory.write(to: folder, int8: true)
        let copy = try ModelDirectory(reading: folder)
        for (index, tensor) in model.layout.tensors.enumerated() where tensor.shape.count == 2 {
            let (range, width) = (model.layout.offsets[index]..<model.layout.offsets[index + 1], tensor.shape[1])
            for start in stride(from: range.lowerBound, to: range.upperBound, by: width) {
                let row = model.values[start..<(start + width)]
                let bound = row.reduce(0) { max($0, abs($1)) } / 127 * 0.501
                #expect(row.indices.allSatisfy { abs(copy.model.values[$0] - model.values[$0]) <= bound })
            }
        }
        let trainer = LanguageTrainer(architecture: architecture, texts: Self.sentences)
        let (before, after) = (try trainer.evaluate(model: model), try trainer.evaluate(model: copy.model))
        #expect(after.accuracy > before.accuracy - 0.02)
        let size = try FileManager.default.attributesOfItem(atPath: folder + "/model.safetensors")[.size] as? Int ?? 0
        #expect(size < model.values.count * 4 / 2)
        // A configuration that two programs could read differently is none.
        let configuration = try String(contentsOfFile: folder + "/config.json", encoding: .utf8)
        try (#"{"model_type": "decoder", "# + configuration.dropFirst())
            .write(toFile: folder + "/config.json", atomically: true, encoding: .utf8)
        let error = #expect(throws: LocalTrainingError.self) { try ModelDirectory(reading: folder) }
        let sentence = error?.ownerSentence ?? ""
        #expect(sentence.contains("config.json is not valid JSON: "), "\(sentence)")
        try configuration.write(toFile: folder + "/config.json", atomically: true, encoding: .utf8)
        // Cut and changed files are refused, not read.
        let data = try #require(FileManager.default.contents(atPath: folder + "/model.safetensors"))
        for length in [0, 7, 20, 200, data.count - 1] {
            try data.prefix(length).write(to: URL(fileURLWithPath: folder + "/model.safetensors"))
            #expect(throws: (any Error).self) { try ModelDirectory(reading: folder) }
        }
    }
}
