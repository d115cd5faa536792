import Foundation
import LocalTraining
import Tensors
import TestSupport
import Testing

/// `martlet clean`, `suggest`, `export` and `personalize`, as a user runs them on a machine without a server.
@Suite(.timeLimit(.minutes(30)))
struct ModelCommandsTests {
    private static let sentences = [
        "i love you so much", "i love coffee in the morning", "i love you and you know it", "you are the best friend",
        "see you in the morning", "the best coffee is here",
    ]
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    private func path(_ name: String) -> String { directory.path + "/" + name }

    private func martlet(_ arguments: [String]) throws -> (status: Int32, output: String) {
        try ServerProcess.capture(ServerProcess.binary, arguments)
    }

    /// A command with lines on its standard input; what it printed.
    private func piped(_ lines: String, _ arguments: [String]) throws -> String {
        try lines.write(toFile: path("lines"), atomically: true, encoding: .utf8)
        let quoted = ([ServerProcess.binary] + arguments).map { "'\($0)'" }.joined(separator: " ")
        return try ServerProcess.capture("/bin/sh", ["-c", "\(quoted) <'\(path("lines"))'"]).output
    }

    /// A small word model that has learned the sentences.
    private func trainedModel() throws -> String {
        let vocabulary = WordTokenizer.vocabulary(of: Self.sentences, size: 40)
        let json = String(decoding: try JSONEncoder().encode(vocabulary), as: UTF8.self)
        let description = ModelDescription(
            architecture: "cifg-lstm",
            config: #"{"embedding_dim": 12, "hidden_dim": 16, "tokenizer": {"type": "word", "vocabulary": \#(json)}}"#
        )
        let architecture = try #require(try ModelArchitectures.make(description) as? any LanguageArchitecture)
        var model = architecture.initialParameters(seed: 1)
        let delta = try LanguageTrainer(architecture: architecture, texts: Self.sentences).train(
            model: model,
            instructions: TrainingInstructions(learningRate: 2, batchSize: 2, epochs: 120, seed: 3)
        ).delta
        VectorKernels.axpy(1, delta.values, into: &model.values)
        try ModelDirectory(description: description, model: model).write(to: path("model"))
        return path("model")
    }

    @Test func cleaningWritesWhatIsLeftAndCountsByRule() throws {
        var text = Data("Write to ann@example.com today, please.\n".utf8)
        text += Data("My card is 4111 1111 1111 1111, keep it secret.\n".utf8)
        text += Data("See you at noon in the garden.\nSee you at noon in the garden.\n".utf8)
        text += Data([0x61, 0xFF, 0xFE, 0xFD, 0xFC, 0x62, 0x0A])
        try text.write(to: URL(fileURLWithPath: path("in.txt")))
        let result = try martlet(["clean", path("in.txt"), "-o", path("out.txt"), "--json"])
        #expect(result.status == 0, "\(result.output)")
        let clean = try String(contentsOfFile: path("out.txt"), encoding: .utf8).split(separator: "\n")
        #expect(
            clean == [
                "Write to <email> today, please.", "My card is <card>, keep it secret.",
                "See you at noon in the garden.",
            ]
        )
        let report = try #require(
            try JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any]
        )
        let rules = try #require(report["rules"] as? [String: Int])
        #expect(report["records_read"] as? Int == 5 && report["records"] as? Int == 3, "\(report)")
        #expect(rules["email"] == 1 && rules["card"] == 1, "\(rules)")
        #expect(rules.values.reduce(0, +) >= 4, "\(rules)")
        // Too little is left: an exit code of its own, for scripts.
        #expect(try martlet(["clean", path("in.txt"), "--minimum-records", "4"]).status == 10)
        #expect(try martlet(["clean", path("in.txt"), "--minimum-characters", "400"]).status == 10)
    }

    @Test func badFilesAreNamedWithTheirLine() throws {
        try "{\"text\": \"hello there\"}\n{\"text\": 4}\n".write(
            toFile: path("in.jsonl"),
            atomically: true,
            encoding: .utf8
        )
        #expect(try martlet(["clean", path("in.jsonl")]).output.contains("in.jsonl, line 2: no text in field 'text'"))
        try "{\"text\": \"hello there\"}\n\n{broken\n".write(
            toFile: path("in.jsonl"),
            atomically: true,
            encoding: .utf8
        )
        #expect(try martlet(["clean", path("in.jsonl")]).output.contains("in.jsonl, line 3: not a JSON"))
        try "a,b\n1,2\n".write(toFile: path("in.csv"), atomically: true, encoding: .utf8)
        let answer = try martlet(["clean", path("in.csv")])
        #expect(answer.status != 0 && answer.output.contains("no column 'text'; it has a, b"), "\(answer.output)")
        #expect(try martlet(["clean", path("none.txt")]).output.contains("none.txt: no such file"))
        let missing = try martlet(["suggest", "--model", path("none"), "--text", "a"])
        #expect(missing.status != 0 && missing.output.contains("there is no file or directory"), "\(missing.output)")
    }

    @Test func suggestionsComeFromTextPrefixAndStandardInput() throws {
        let model = try trainedModel()
        func suggest(_ arguments: String...) throws -> String {
            let answer = try martlet(["suggest", "--model", model] + arguments)
            #expect(answer.status == 0, "\(answer.output)")
            return answer.output
        }
        let first = try suggest("--text", "i love ", "-k", "2").split(separator: "\n").map(String.init)
        #expect(Set(first) == ["you", "coffee"])
        #expect(try suggest("--text", "i love co", "-k", "1") == "coffee\n")
        #expect(try suggest("--text", "i love ", "--prefix", "yo") == "you\n")
        let json = try JSONSerialization.jsonObject(with: Data(try suggest("--text", "i love ", "--json").utf8))
        let items = try #require(json as? [[String: Any]])
        let chances = items.compactMap { $0["p"] as? Double }
        #expect(items.count == 3 && chances == chances.sorted(by: >) && chances[0] < 1, "\(items)")
        try "You\n".write(toFile: path("blocked"), atomically: true, encoding: .utf8)
        #expect(!(try suggest("--text", "i love ", "-k", "9", "--blocklist", path("blocked"))).contains("you"))
        // A line for each line, in order; each as if it had been asked alone.
        let lines = ["i love ", "", "see you in the ", "i love co"]
        let answers = try piped(
            lines.joined(separator: "\n") + "\n",
            ["suggest", "--model", model, "--stdin", "-k", "2"]
        ).split(separator: "\n", omittingEmptySubsequences: false).dropLast().map(String.init)
        #expect(answers.count == 4)
        for (line, answer) in zip(lines, answers) {
            let alone = try suggest("--text", line, "-k", "2").split(separator: "\n").joined(separator: "\t")
            #expect(answer == alone, "\(line)")
        }
    }

    @Test func eightBitsAreAQuarterAndSuggestTheSame() throws {
        let model = try trainedModel()
        try Self.sentences.joined(separator: "\n").write(toFile: path("held.txt"), atomically: true, encoding: .utf8)
        let arguments = ["export", "--model", model, "--int8", "--output", path("small"), "--check", path("held.txt")]
        let answer = try martlet(arguments)
        #expect(answer.status == 0 && answer.output.contains("in 8 bits"), "\(answer.output)")
        func size(_ name: String) throws -> Int {
            try #require(try FileManager.default.attributesOfItem(atPath: path(name))[.size] as? Int)
        }
        // Rows of 12 and 16 values bring a scale each.
        #expect(try 2 * size("small/model.safetensors") < size("model/model.safetensors"))
        for text in ["i love ", "see you in the "] {
            let before = try martlet(["suggest", "--model", model, "--text", text, "-k", "1"]).output
            #expect(try martlet(["suggest", "--model", path("small"), "--text", text, "-k", "1"]).output == before)
        }
        let merged = try martlet(["export", "--model", model, "--merge", "--output", path("merged")])
        #expect(merged.status != 0 && merged.output.contains("no adapters to merge"), "\(merged.output)")
    }

    @Test func aPersonalCopyKnowsTheUsersWords() throws {
        let model = try trainedModel()
        let own = (0..<40).map { "i love zanzibar number \($0 % 7) and my garden" }
        try own.joined(separator: "\n").write(toFile: path("own.txt"), atomically: true, encoding: .utf8)
        let arguments = [
            "personalize", "--model", model, "--data", path("own.txt"), "--output", path("mine"), "--json",
        ]
        let answer = try martlet(arguments)
        #expect(answer.status == 0, "\(answer.output)")
        let outcome = try #require(
            try JSONSerialization.jsonObject(with: Data(answer.output.utf8)) as? [String: Any]
        )
        #expect((outcome["cache_words"] as? Int ?? 0) > 0, "\(outcome)")
        let before = try #require(outcome["before"] as? Double)
        let after = try #require(outcome["after"] as? Double)
        #expect(after > before || outcome["kept"] as? Bool == false, "\(outcome)")
        // A word that the vocabulary has not comes from the cache, and only in the copy.
        let prefix = ["--text", "i love ", "--prefix", "zan"]
        #expect(try martlet(["suggest", "--model", model] + prefix).output.trimmingCharacters(in: .newlines).isEmpty)
        #expect(try martlet(["suggest", "--model", path("mine")] + prefix).output == "zanzibar\n")
    }
}
