import Aggregation
import ArgumentParser
import BenchmarkHarness
import Coordination
import DifferentialPrivacy
import Foundation
import LocalTraining
import StrictJSON
import Tensors
import WireFormat

/// How many of the words that a population uses most are found by votes, by the population's size.
///
/// Each simulated client holds some lines of a play, drawn at random, and votes in every round. Votes, noise, threshold, its choice and
/// the trie are the library's own; the server and its network are left out.
struct VocabularyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "vocabulary",
        abstract: "Recall of words found by votes on real text, by the number of clients."
    )

    @Option(help: "A play: speaking roles and their lines.") var text: String
    @Option(help: "Clients, several with commas.") var clients = "10000,100000,1000000"
    @Option(help: "Lines that each client holds.") var lines = 5
    @Option(help: "ε of all rounds.") var epsilon = 4.0
    @Option(help: "δ of all rounds.") var delta = 1e-5
    @Option(help: "Rounds: one more than the longest word's letters.") var rounds = 10
    @Option(help: "Seeds.") var seeds = 3

    private static let ranks = [50, 200, 1000]

    func run() async throws {
        let play = try String(contentsOfFile: text, encoding: .utf8)
        let lines = PlayScript.roles(in: play).flatMap(\.lines)
        // Counted once a line: a client's words are those of its lines.
        let words = lines.map { line in
            WordTokenizer.tokens(of: line).reduce(into: [String: Int]()) { $0[$1, default: 0] += 1 }
        }
        var uses: [String: Int] = [:]
        for line in words {
            for (word, count) in line where word.first?.isLetter == true { uses[word, default: 0] += count }
        }
        let byUse = uses.sorted { ($1.value, $0.key) < ($0.value, $1.key) }.map(\.key)
        let histogram = try mechanism()
        for count in try clients.split(separator: ",").map({ text in
            guard let count = Int(text), count > 0 else { throw ValidationError("'\(text)' is no number of clients") }
            return count
        }) {
            var recalls = Self.ranks.map { _ in [Double]() }
            var found: [Double] = []
            var unused = 0
            for seed in 1...max(1, seeds) {
                let words = Set(try self.words(words, histogram, clients: count, seed: UInt64(seed)))
                found.append(Double(words.count))
                unused += words.count { uses[$0] == nil }
                for (place, rank) in Self.ranks.enumerated() {
                    recalls[place].append(Double(byUse.prefix(rank).count { words.contains($0) }) / Double(rank))
                }
            }
            for (place, rank) in Self.ranks.enumerated() {
                var line = MeasuredCase(
                    benchmark: "vocabulary",
                    name: "votes clients=\(count), \(rank) most used words",
                    unit: "recall",
                    values: recalls[place]
                )
                line.extra = [
                    "epsilon": epsilon, "delta": delta, "noise_multiplier": histogram.noiseMultiplier,
                    "threshold": histogram.threshold, "rounds": rounds, "lines_per_client": self.lines,
                    "words_found": found.sorted()[found.count / 2], "unused_words": unused,
                    "distinct_words": uses.count,
                ]
                line.report()
            }
        }
    }

    /// The noise and the threshold that a run file with this target would get.
    private func mechanism() throws -> GaussianSparseHistogram {
        let document = """
            {"population": "p", "kind": "analytics", "rounds": \(rounds), "analytics": {"method": "votes"},
             "cohort": {"goal": 1}, "privacy": {"target": {"epsilon": \(epsilon)}}}
            """
        let specification = try PrivacyCalibration.resolve(
            RunSpecification.read(.parse(Array(document.utf8))),
            parameterCount: nil,
            delta: delta
        )
        return try GaussianSparseHistogram(
            noiseMultiplier: specification.privacy.noiseMultiplier,
            threshold: specification.privacy.threshold ?? 0
        )
    }

    /// The words that a run with so many clients ends with.
    private func words(
        _ lines: [[String: Int]],
        _ histogram: GaussianSparseHistogram,
        clients: Int,
        seed: UInt64
    ) throws -> [String] {
        var trie = PrefixTrie(levelCount: rounds, nodeLimit: 1000)
        var coins = Xoshiro256StarStar(seed: seed)
        for level in 1...rounds {
            let places = TrieVoting.places(in: trie, level: level)
            var counts: [PrefixTrie.Node: Int] = [:]
            for client in 0..<clients {
                var holdings = Xoshiro256StarStar(seed: seed << 32 | UInt64(client))
                var words: [String: Int] = [:]
                for _ in 0..<self.lines {
                    let line = lines[Int.random(in: 0..<lines.count, using: &holdings)]
                    words.merge(line) { $0 + $1 }
                }
                let vote = TrieVoting.vote(of: words, places: places, level: level, seed: coins.next()).values
                guard let node = PrefixTrie.node(parent: vote[0], scalar: vote[1]) else { continue }
                counts[node, default: 0] += 1
            }
            let nodes = counts.keys.sorted()
            let noised = try histogram.release(nodes.map { counts[$0] ?? 0 })
            trie = TrieVotes.grow(
                trie,
                level: level,
                by: zip(nodes, noised).compactMap { node, count in count.map { (node: node, noisedCount: $0) } }
            )
            if trie.levels[level - 1].isEmpty { break }
        }
        return trie.words
    }
}
