import Foundation
import LocalTraining
import Tensors
import Testing

/// Federated learning of whole texts, by fixed seeds, against what the same settings reach elsewhere.
///
/// They take minutes without optimisation, so they run in release builds, or where `MARTLET_SLOW_TESTS` is set; the texts
/// are not part of the repository.
@Suite(.enabled(if: SlowTests.areWanted))
struct LearningTests {
    /// Training and test text of every role with two lines or more.
    private func roles() -> [(training: String, test: String)]? {
        guard let play = SharedData.text("shakespeare.txt") else { return nil }
        return PlayScript.roles(in: play).filter { $0.lines.count >= 2 }.map { role in
            let count = max(1, min(8 * role.lines.count / 10, role.lines.count - 1))
            func text(_ lines: ArraySlice<String>) -> String { lines.joined(separator: "\n") + "\n" }
            return (text(role.lines[..<count]), text(role.lines[count...]))
        }
    }

    /// Rounds of FedAvg over a simulated population, weighted by tokens.
    private func train(
        _ architecture: any LanguageArchitecture,
        clients: [LanguageTrainer],
        rounds: Int,
        cohort: Int,
        instructions: TrainingInstructions,
        seed: UInt64
    ) throws -> ParameterVector {
        var model = architecture.initialParameters(seed: seed)
        var generator = Xoshiro256StarStar(seed: seed &+ 1)
        for round in 0..<rounds {
            var order = Array(clients.indices)
            generator.shuffle(&order)
            let chosen = order.prefix(cohort).sorted()
            var results = [(delta: [Float], tokens: Int)?](repeating: nil, count: chosen.count)
            let start = model
            results.withUnsafeMutableBufferPointer { slots in
                let slots = Slots(buffer: slots)
                Parallel.forEach(count: chosen.count) { index in
                    var own = instructions
                    own.seed = UInt64(round * 1000 + chosen[index])
                    guard let result = try? clients[chosen[index]].train(model: start, instructions: own) else {
                        return
                    }
                    slots.buffer[index] = (result.delta.values, result.metrics.tokens)
                }
            }
            let total = results.reduce(0) { $0 + ($1?.tokens ?? 0) }
            for case let result? in results {
                VectorKernels.axpy(Float(Double(result.tokens) / Double(total)), result.delta, into: &model.values)
            }
        }
        return model
    }

    private struct Slots: @unchecked Sendable {
        // SAFETY: every iteration writes a slot of its own.
        let buffer: UnsafeMutableBufferPointer<(delta: [Float], tokens: Int)?>
    }

    /// The reference reaches 0.411 after 20 rounds; 0.38 is the specification's bound.
    @Test func charactersOfShakespeareAreLearnedInTwentyRounds() throws {
        guard let roles = roles() else { return }
        let alphabet = CharacterTokenizer.alphabet(of: [SharedData.text("shakespeare.txt") ?? ""])
        let json = String(decoding: try JSONEncoder().encode(alphabet), as: UTF8.self)
        let config = #"{"preset": "char-small", "stream": true, "unk_target": "train", "alphabet": \#(json)}"#
        let architecture = try #require(
            try ModelArchitectures.make(.init(architecture: "cifg-lstm", config: config)) as? any LanguageArchitecture
        )
        #expect(architecture.layout.parameterCount == 31_333)
        let clients = roles.map { LanguageTrainer(architecture: architecture, texts: [$0.training]) }
        let model = try train(
            architecture,
            clients: clients,
            rounds: 20,
            cohort: 10,
            instructions: TrainingInstructions(learningRate: 3, batchSize: 4, epochs: 1, gradientClip: 1, seed: 0),
            seed: 42
        )
        let test = LanguageTrainer(architecture: architecture, texts: roles.map(\.test))
        let metrics = try test.evaluate(model: model)
        #expect(metrics.tokens == 209_265)
        #expect(metrics.accuracy >= 0.38, "top-1 \(metrics.accuracy), loss \(metrics.loss)")
    }

    private struct Poem: Decodable {
        var author: String
        var text: String
    }

    private func poems() throws -> [String: [String]]? {
        guard let lines = SharedData.text("tang-poems.jsonl") else { return nil }
        let poems = try lines.split(separator: "\n").map { try JSONDecoder().decode(Poem.self, from: Data($0.utf8)) }
        return Dictionary(grouping: poems, by: \.author).mapValues { $0.map(\.text) }
    }

    /// Every character comes back, both models get better at poems that trained nobody, and both suggest characters.
    @Test func tangPoemsByPoetAreLearned() throws {
        guard let byPoet = try poems() else { return }
        #expect(byPoet.count == 172)
        let poets = byPoet.sorted { $0.key < $1.key }.map {
            (training: $0.value.prefix($0.value.count * 8 / 10), all: $0.value)
        }
        #expect(poets.reduce(0) { $0 + $1.training.count } == 14_018)
        let all = poets.flatMap(\.all)
        let characters = CharacterTokenizer.alphabet(of: all)
        #expect(characters.unicodeScalars.count == 7094)
        var bpe = BPETrainer()
        for poem in poets.prefix(60).flatMap({ $0.training }) { bpe.add(poem) }
        let pairs = bpe.train(vocabularySize: 2000)
        let single = CharacterTokenizer(alphabet: characters)
        for poem in all {
            #expect(pairs.decode(pairs.encode(poem)) == poem)
            #expect(single.decode(single.encode(poem)) == poem)
        }
        let alphabet = String(
            decoding: try JSONEncoder().encode(CharacterTokenizer.alphabet(of: all, limit: 1500)),
            as: UTF8.self
        )
        let file = String(
            decoding: try JSONEncoder().encode(String(decoding: pairs.huggingFaceJSON(), as: UTF8.self)),
            as: UTF8.self
        )
        for tokenizer in [
            #"{"type": "char", "alphabet": \#(alphabet)}"#, #"{"type": "bpe", "tokenizer": \#(file)}"#,
        ] {
            let config = #"{"embedding_dim": 32, "hidden_dim": 64, "window": 40, "tokenizer": \#(tokenizer)}"#
            let architecture = try #require(
                try ModelArchitectures.make(.init(architecture: "cifg-lstm", config: config))
                    as? any LanguageArchitecture
            )
            let clients = poets.prefix(60).map {
                LanguageTrainer(architecture: architecture, texts: Array($0.training))
            }
            let test = LanguageTrainer(
                architecture: architecture,
                texts: poets.prefix(40).flatMap { $0.all.dropFirst($0.training.count).prefix(3) }
            )
            let before = try test.evaluate(model: architecture.initialParameters(seed: 42))
            let model = try train(
                architecture,
                clients: clients,
                rounds: 4,
                cohort: 8,
                instructions: TrainingInstructions(learningRate: 2, batchSize: 8, epochs: 1, gradientClip: 1, seed: 0),
                seed: 42
            )
            let after = try test.evaluate(model: model)
            #expect(after.bitsPerByte < before.bitsPerByte - 0.3)
            #expect(after.accuracy > 0.05)
            let suggester = try Suggester(architecture: architecture, model: model)
            let next = suggester.suggest(after: "春眠不覺曉，處處聞啼", count: 3)
            #expect(next.count == 3)
            #expect(next.allSatisfy { $0.word.unicodeScalars.allSatisfy { $0.properties.isIdeographic } })
        }
    }
}

/// Whether tests that are slow without optimisation run.
enum SlowTests {
    static var areWanted: Bool {
        #if DEBUG
        return ProcessInfo.processInfo.environment["MARTLET_SLOW_TESTS"] != nil
        #else
        return true
        #endif
    }
}
