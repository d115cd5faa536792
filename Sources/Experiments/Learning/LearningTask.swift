import BenchmarkHarness
import Foundation
import LocalTraining
import StrictJSON
import Tensors

/// What an experiment's clients have, the model they train, and what it is judged by.
struct LearningTask: Sendable {
    /// `{"architecture": …, "config": …}`.
    var model: String
    /// One element a client, in the order of the data.
    var clients: [LocalData]
    /// Measures parameters on texts that train nobody.
    var judge: Judge

    /// Held-out data with the model's architecture.
    struct Judge: @unchecked Sendable {
        // SAFETY: trainers over texts and tables are values that nothing changes after they are made.
        private let architecture: any ModelArchitecture
        private let trainer: any ArchitectureTrainer

        init(description: ModelDescription, heldOut: LocalData) throws {
            architecture = try ModelArchitectures.make(description)
            trainer = try architecture.makeTrainer(
                data: heldOut,
                instructions: TrainingInstructions(learningRate: 1, batchSize: 1, epochs: 1, seed: 0)
            )
        }

        func measure(_ model: ParameterVector) throws -> TrainingMetrics {
            try trainer.evaluate(model: model, base: nil)
        }

        /// Measures on other data.
        func measure(_ model: ParameterVector, of data: LocalData) throws -> TrainingMetrics {
            let instructions = TrainingInstructions(learningRate: 1, batchSize: 1, epochs: 1, seed: 0)
            return try architecture.makeTrainer(data: data, instructions: instructions).evaluate(
                model: model,
                base: nil
            )
        }
    }

    private init(architecture: String, config: String, clients: [LocalData], heldOut: [String]) throws {
        model = "{\"architecture\": \"\(architecture)\", \"config\": \(config)}"
        self.clients = clients
        judge = try Judge(
            description: ModelDescription(architecture: architecture, config: config),
            heldOut: .texts(heldOut)
        )
    }

    // MARK: - Shakespeare

    /// The training and test texts of every role with two lines or more: the first four fifths of its lines, and the rest.
    private static func roles(_ directory: String) throws -> (all: String, roles: [(training: String, test: String)]) {
        let play = try text(directory + "/shakespeare.txt")
        let roles = PlayScript.roles(in: play).filter { $0.lines.count >= 2 }.map { role in
            let count = max(1, min(8 * role.lines.count / 10, role.lines.count - 1))
            func text(_ lines: ArraySlice<String>) -> String { lines.joined(separator: "\n") + "\n" }
            return (training: text(role.lines[..<count]), test: text(role.lines[count...]))
        }
        return (play, roles)
    }

    /// Next characters by speaking role; `char-small`, 31,333 parameters.
    static func shakespeareCharacters(_ directory: String) throws -> LearningTask {
        try shakespeareCharacters(directory) { #""preset": "char-small", "alphabet": \#($0)"# }
    }

    /// The same with 4,853 parameters, for what a large model would need more clients for.
    static func shakespeareSmallest(_ directory: String) throws -> LearningTask {
        try shakespeareCharacters(directory) {
            #""embedding_dim": 16, "hidden_dim": 32, "tokenizer": {"type": "char", "alphabet": \#($0)}"#
        }
    }

    /// With the fields of a model, made from its alphabet.
    private static func shakespeareCharacters(
        _ directory: String,
        _ fields: (_ alphabet: String) -> String
    ) throws -> LearningTask {
        let (play, roles) = try roles(directory)
        let own = fields(try json(CharacterTokenizer.alphabet(of: [play])))
        return try LearningTask(
            architecture: "cifg-lstm",
            config: #"{\#(own), "stream": true, "unk_target": "train"}"#,
            clients: roles.map { .texts([$0.training]) },
            heldOut: roles.map(\.test)
        )
    }

    /// Next words by speaking role; `word-small`, 216,592 parameters, the 2,000 most frequent tokens of the training texts.
    static func shakespeareWords(_ directory: String) throws -> LearningTask {
        let (_, roles) = try roles(directory)
        let words = try json(WordTokenizer.vocabulary(of: roles.map(\.training), size: 2000))
        let tokenizer = #"{"type": "word", "vocabulary": \#(words)}"#
        return try LearningTask(
            architecture: "cifg-lstm",
            config: #"{"preset": "word-small", "stream": true, "unk_target": "train", "tokenizer": \#(tokenizer)}"#,
            clients: roles.map { .texts([$0.training]) },
            heldOut: roles.map(\.test)
        )
    }

    // MARK: - Tang poems

    private struct Poem: Decodable {
        var author: String
        var text: String
    }

    /// Poems of 172 poets: the first four fifths of each poet's, and the rest.
    private static func poets(_ directory: String) throws -> [(training: [String], test: [String])] {
        let poems = try text(directory + "/tang-poems.jsonl").split(separator: "\n")
            .map { try JSONDecoder().decode(Poem.self, from: Data($0.utf8)) }
        return Dictionary(grouping: poems, by: \.author).sorted { $0.key < $1.key }.map { poet in
            let texts = poet.value.map(\.text)
            return (Array(texts.prefix(texts.count * 8 / 10)), Array(texts.dropFirst(texts.count * 8 / 10)))
        }
    }

    /// Next characters of poems by poet, with the 2,000 most frequent characters of the training poems.
    static func tangCharacters(_ directory: String) throws -> LearningTask {
        let poets = try poets(directory)
        let alphabet = CharacterTokenizer.alphabet(of: poets.flatMap(\.training), limit: 1996)
        return try tang(poets, tokenizer: #"{"type": "char", "alphabet": \#(try json(alphabet))}"#)
    }

    /// The same with byte pairs: nothing is unknown to 2,000 of them.
    static func tangBytePairs(_ directory: String) throws -> LearningTask {
        let poets = try poets(directory)
        var trainer = BPETrainer()
        for poem in poets.flatMap(\.training) { trainer.add(poem) }
        let pairs = trainer.train(vocabularySize: 2000)
        for poem in poets.flatMap({ $0.training + $0.test }) where pairs.decode(pairs.encode(poem)) != poem {
            throw BenchmarkError("a poem does not come back from its byte pairs: \(poem.prefix(20))")
        }
        let file = try json(String(decoding: pairs.huggingFaceJSON(), as: UTF8.self))
        return try tang(poets, tokenizer: #"{"type": "bpe", "tokenizer": \#(file)}"#)
    }

    private static func tang(
        _ poets: [(training: [String], test: [String])],
        tokenizer: String
    ) throws -> LearningTask {
        try LearningTask(
            architecture: "cifg-lstm",
            config: #"{"embedding_dim": 64, "hidden_dim": 128, "window": 64, "tokenizer": \#(tokenizer)}"#,
            clients: poets.map { .texts($0.training) },
            heldOut: poets.flatMap { $0.test.prefix(8) }
        )
    }

    // MARK: -

    static func text(_ path: String) throws -> String {
        guard let data = FileManager.default.contents(atPath: path) else {
            throw BenchmarkError("cannot read \(path): --data must name the directory that has it")
        }
        return String(decoding: data, as: UTF8.self)
    }

    private static func json(_ value: some Encodable) throws -> String {
        try JSONValue(encoding: value).text
    }
}
