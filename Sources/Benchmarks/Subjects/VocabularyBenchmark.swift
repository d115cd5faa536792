import Aggregation
import ArgumentParser
import Foundation
import LocalTraining
import Tensors
import WireFormat

/// How many of the words that a population uses most are found by TrieHH, by the population's size.
///
/// Each simulated client holds some lines of a play, drawn at random. Votes, draws and the trie are the library's own; the
/// server and its network are left out.
struct VocabularyBenchmark: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "vocabulary",
        abstract: "Recall of TrieHH on real text, by the number of clients."
    )

    @Option(help: "A play: speaking roles and their lines.") var text: String
    @Option(help: "Clients, several with commas.") var clients = "10000,100000,1000000"
    @Option(help: "Lines that each client holds.") var lines = 5
    @Option(help: "ε of all rounds.") var epsilon = 4.0
    @Option(help: "Votes that a prefix needs.") var threshold = 15
    @Option(help: "Rounds: one more than the longest word's letters.") var rounds = 10
    @Option(help: "Seeds.") var seeds = 3

    private static let ranks = [50, 200, 1000]

    func run() async throws {
        let workspace = try Workspace()
        let play = try String(contentsOfFile: text, encoding: .utf8)
        let lines = PlayScript.roles(in: play).flatMap(\.lines)
        var uses: [String: Int] = [:]
        for word in WordTokenizer.tokens(of: lines.joined(separator: "\n")) where word.first?.isLetter == true {
            uses[word, default: 0] += 1
        }
        let byUse = uses.sorted { ($1.value, $0.key) < ($0.value, $1.key) }.map(\.key)
        for count in try clients.split(separator: ",").map({ text in
            guard let count = Int(text), count > 0 else { throw ValidationError("'\(text)' is no number of clients") }
            return count
        }) {
            var recalls = Self.ranks.map { _ in [Double]() }
            var found: [Double] = []
            for seed in 1...max(1, seeds) {
                let words = Set(try self.words(lines, clients: count, seed: UInt64(seed), directory: workspace.path))
                found.append(Double(words.count))
                for (place, rank) in Self.ranks.enumerated() {
                    recalls[place].append(Double(byUse.prefix(rank).count { words.contains($0) }) / Double(rank))
                }
            }
            for (place, rank) in Self.ranks.enumerated() {
                var line = Measurement(
                    benchmark: "vocabulary",
                    name: "triehh clients=\(count), \(rank) most used words",
                    unit: "recall",
                    values: recalls[place]
                )
                line.extra = [
                    "epsilon": epsilon, "threshold": threshold, "rounds": rounds, "lines_per_client": self.lines,
                    "words_found": found.sorted()[found.count / 2], "distinct_words": uses.count,
                ]
                line.report()
            }
        }
    }

    /// The words that a run with so many clients ends with.
    private func words(_ lines: [String], clients: Int, seed: UInt64, directory: String) throws -> [String] {
        let config = #"{"levels": \#(rounds), "prefix_limit": 1000, "tokens": "word"}"#
        let architecture = try ModelArchitectures.make(ModelDescription(architecture: "triehh", config: config))
        let rate = RunSpecification.Analytics.samplingRate(epsilon: epsilon, levels: rounds, threshold: threshold)
        guard var trie = PrefixTrie(architecture.initialParameters(seed: 0)) else {
            throw BenchmarkError("the first model is no trie")
        }
        // Not the secret coins of a server: an experiment that can be repeated.
        var coins = Xoshiro256StarStar(seed: seed)
        for level in 1...rounds {
            let model = trie.vector
            var votes: [SpooledUpdate] = []
            for client in 0..<clients where Double.random(in: 0..<1, using: &coins) < rate {
                var holdings = Xoshiro256StarStar(seed: seed << 32 | UInt64(client))
                let texts = (0..<self.lines).map { _ in lines[Int.random(in: 0..<lines.count, using: &holdings)] }
                var instructions = TrainingInstructions(learningRate: 1, batchSize: 1, epochs: 1, seed: coins.next())
                instructions.context = TrainingContext(run: "run", round: level)
                let trainer = try architecture.makeTrainer(data: .texts(texts), instructions: instructions)
                let vote = try trainer.train(model: model, instructions: instructions).delta
                let path = "\(directory)/\(votes.count).safetensors"
                try SafetensorsWriter.encode(vote).write(to: URL(fileURLWithPath: path))
                votes.append(SpooledUpdate(path: path, weight: 1))
            }
            trie = try TrieVotes.grow(trie, level: level, by: votes, threshold: threshold)
            if trie.levels[level - 1].isEmpty { break }
        }
        return trie.words
    }
}
