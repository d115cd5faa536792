import Coordination
import DifferentialPrivacy
import Foundation
import LocalTraining
import StrictJSON
import Tensors
import TestSupport
import Testing
import WireFormat

/// Runs of kind `analytics` from specification to words: devices with texts, the coordinator, the ledger.
@Suite(.timeLimit(.minutes(2)))
struct AnalyticsTests {
    /// Devices that answer as the client library does, with a coordinator in between.
    private struct Field {
        let bench: Bench
        let run: String
        let clients: [String]
        let texts: [[String]]

        init(
            _ specification: String,
            texts: [[String]],
            budget: BudgetSpecification? = nil,
            start: Bool = true
        ) async throws {
            self.texts = texts
            bench = try await Bench(.memory)
            let document = try RunSpecification.read(JSONValue.parse(Array(specification.utf8)))
            _ = try await bench.coordinator.createPopulation(PopulationRequest(name: "p", budget: budget))
            let model = try ModelArchitectures.make(Self.description(document.model)).initialParameters(seed: 0)
            run = try await bench.coordinator.createRun(document, initialModel: model).id
            clients = try await bench.enroll(texts.count)
            if start { _ = try await bench.coordinator.startRun(run) }
        }

        static func description(_ model: RunSpecification.Model) throws -> ModelDescription {
            let config = try WireCoding.encode(try #require(model.config))
            return ModelDescription(architecture: model.architecture, config: String(decoding: config, as: UTF8.self))
        }

        /// Everyone asks for work, and those who get some answer, until the round is over.
        func round() async throws {
            let coordinator = bench.coordinator
            let specification = try await coordinator.run(run).specification
            for (client, texts) in zip(clients, texts) {
                guard let work = try await Bench.assignment(coordinator, client) else { continue }
                #expect(work.kind == "analyze")
                let terms = try await coordinator.beginUpdate(assignment: work.id, client: client)
                var told = TrainingInstructions(
                    learningRate: 1,
                    batchSize: 1,
                    epochs: 1,
                    seed: UInt64(work.seed) ?? 0,
                    model: try Self.description(specification.model)
                )
                told.context = TrainingContext(run: work.run, round: work.round)
                let path = coordinator.blobs.path(sha256: work.model.sha256)
                let model = try SafetensorsFile(path: path).readAll()
                let answer = try DeviceTrainer(texts: texts).train(model: model, instructions: told)
                #expect(answer.delta.layout == (work.updateTensors ?? work.tensors))
                _ = try await coordinator.finishUpdate(
                    assignment: work.id,
                    client: client,
                    Bench.written(
                        SafetensorsWriter.encode(answer.delta),
                        by: terms,
                        examples: answer.exampleCount
                    )
                )
            }
            _ = try await Bench.untilSettled(coordinator, run)
        }

        func words(minimumCount: Double? = nil) async throws -> VocabularyView {
            try await bench.coordinator.vocabulary(run: run, version: "latest", minimumCount: minimumCount)
        }
    }

    private static func messages(_ count: Int) -> [[String]] {
        (0..<count).map { SyntheticMessages.messages(ofClient: $0, seed: 7) }
    }

    /// How many clients hold each word.
    private static func holders(_ texts: [[String]]) -> [String: Int] {
        var holders: [String: Int] = [:]
        for client in texts {
            for word in Set(client.flatMap { WordTokenizer.tokens(of: $0) }) { holders[word, default: 0] += 1 }
        }
        return holders
    }

    private static func histogram(
        _ candidates: [String],
        goal: Int,
        limit: Int,
        privacy: String = "{}"
    ) throws -> String {
        let list = String(decoding: try JSONEncoder().encode(candidates), as: UTF8.self)
        return """
            {"population": "p", "kind": "analytics", "privacy": \(privacy),
             "cohort": {"goal": \(goal), "minimum": \(goal), "over_selection": 1},
             "analytics": {"method": "histogram", "words_per_client": \(limit), "candidates": \(list)}}
            """
    }

    // MARK: - Histogram

    @Test func countsWithoutNoiseAreExact() async throws {
        let texts = Self.messages(40)
        let holders = Self.holders(texts)
        let candidates = holders.keys.sorted() + ["zeppelin"]
        let field = try await Field(try Self.histogram(candidates, goal: 40, limit: 1000), texts: texts)
        try await field.round()
        let found = try await field.words()
        #expect(found.countError == 0 && found.minimumCount == 1 && found.hidden == 1)
        #expect(found.items.count == holders.count)
        for item in found.items { #expect(item.count == Double(holders[item.word] ?? 0), "\(item.word)") }
        let counts = found.items.compactMap(\.count)
        #expect(counts == counts.sorted(by: >))
        #expect(try await field.words(minimumCount: -1).items.last == .init(word: "zeppelin", count: 0))
    }

    @Test func frequentWordsAreFoundUnderNoiseAndUnclaimedOnesAreNot() async throws {
        let texts = Self.messages(150)
        let holders = Self.holders(texts)
        let unclaimed = (0..<500).map { "unclaimed\($0)" }
        let candidates = holders.keys.sorted() + unclaimed
        let limit = 60
        let field = try await Field(
            try Self.histogram(
                candidates,
                goal: 150,
                limit: limit,
                privacy: #"{"mode": "central", "noise_multiplier": 0.8}"#
            ),
            texts: texts,
            budget: .init(epsilon: 10, delta: 1e-5)
        )
        try await field.round()
        let found = try await field.words()
        let error = try #require(found.countError)
        #expect(abs(error - 0.8 * Double(limit).squareRoot()) < 1e-9)
        // Unclaimed words are shown 0.01 times on average; six or more with 1e-15.
        #expect(found.items.count { $0.word.hasPrefix("unclaimed") } < 6)
        // A word of twice as many clients as the limit asks is missed with P(N > 4.2 s.d.) = 1.3e-5; three of 60 with 1e-10.
        let minimum = try #require(found.minimumCount)
        let frequent = holders.filter { Double($0.value) > 2 * minimum }.keys
        let shown = Set(found.items.map(\.word))
        #expect(frequent.count > 10)
        #expect(frequent.count { !shown.contains($0) } < 3)
        // Counts are off by the noise alone: 7 standard deviations are exceeded by one of a thousand with 3e-9.
        let all = try await field.words(minimumCount: -1e9)
        #expect(all.items.count == candidates.count)
        for item in all.items {
            #expect(abs((item.count ?? 0) - Double(holders[item.word] ?? 0)) < 7 * error, "\(item.word)")
        }
        let mean = all.items.filter { $0.word.hasPrefix("unclaimed") }.reduce(0) { $0 + ($1.count ?? 0) } / 500
        #expect(abs(mean) < 7 * error / 500.0.squareRoot())
        let rows = try await field.bench.coordinator.ledgerRows(population: "p")
        #expect(rows.suffix(2).map(\.state) == ["reserved", "committed"])
        #expect(
            abs((rows.last?.epsilonAfter ?? 0) - GaussianAccountant.epsilon(delta: 1e-5, noiseMultiplier: 0.8)) < 0.01
        )
    }

    @Test func localReportsAddUpToTheCounts() async throws {
        let texts = [[String]](repeating: ["yes"], count: 60) + [[String]](repeating: ["no"], count: 40)
        let field = try await Field(
            try Self.histogram(
                ["yes", "no", "perhaps"],
                goal: 100,
                limit: 1,
                privacy: #"{"mode": "local", "noise_multiplier": 1}"#
            ),
            texts: texts,
            budget: .init(epsilon: 10, delta: 1e-5)
        )
        // The devices of this bench add no noise: what is left is the server's part, which is a plain sum.
        try await field.round()
        let found = try await field.words(minimumCount: -1e9)
        #expect(found.items.map(\.count) == [60, 40, 0] && found.countError == 20)
    }

    // MARK: - TrieHH

    private static func trie(epsilon: Double, threshold: Int, rounds: Int) -> String {
        """
        {"population": "p", "kind": "analytics", "rounds": \(rounds),
         "analytics": {"method": "triehh", "epsilon": \(epsilon), "threshold": \(threshold)}}
        """
    }

    @Test func frequentWordsAreFoundWithoutAList() async throws {
        // 448 devices, of which each is drawn with probability 0.106 in a round: 48 voters.
        let texts = [[String]](repeating: ["tea"], count: 440) + (0..<8).map { ["secret\($0)"] }
        let field = try await Field(
            Self.trie(epsilon: 24, threshold: 9, rounds: 8),
            texts: texts,
            budget: .init(epsilon: 30, delta: 1e-4)
        )
        for _ in 0..<5 { try await field.round() }
        let found = try await field.words()
        // Tea has less than 9 of Bin(440, 0.106) voters in one of four rounds with 2e-10 (Chernoff).
        #expect(found.items == [.init(word: "tea")] && found.threshold == 9 && found.unfinished == [])
        // The fifth level adds nothing, so the sixth round is neither opened nor paid for.
        let run = try await field.bench.coordinator.run(field.run)
        #expect(run.state == "completed" && run.committedRounds == 5 && run.reason == nil)
        let rows = try await field.bench.coordinator.ledgerRows(population: "p")
        let total = try #require(rows.last?.epsilonAfter)
        // Five rounds of epsilon 3 are never more than 15 together.
        #expect(rows.count { $0.state == "committed" && !$0.runId.isEmpty } == 5 && total <= 15.001 && total > 5)
        #expect(rows.last?.event.contains(#""kind":"sample_and_threshold""#) == true)
        #expect(rows.last?.event.contains(#""threshold":9"#) == true)
        let audit = try LedgerAudit(
            try WireCoding.encode(await field.bench.coordinator.ledgerAudit(population: "p"))
        )
        #expect(audit.problems == [])
    }

    @Test func aWordOfFewerClientsThanTheThresholdNeverAppears() async throws {
        // Every client votes in every round that matters here: nothing but the threshold keeps the word back.
        for holders in [11, 12] {
            var trie = PrefixTrie(levelCount: 4, nodeLimit: 10)
            let directory = try TemporaryDirectory()
            for level in 1...4 {
                var votes: [SpooledVote] = []
                for client in 0..<holders {
                    var told = TrainingInstructions(
                        learningRate: 1,
                        batchSize: 1,
                        epochs: 1,
                        seed: UInt64(client),
                        model: .init(architecture: "triehh", config: #"{"levels": 4, "prefix_limit": 10}"#)
                    )
                    told.context = TrainingContext(run: "r", round: level)
                    let answer = try DeviceTrainer(texts: ["rare"]).train(model: trie.vector, instructions: told)
                    votes.append(try SpooledVote(answer.delta, directory.path + "/\(level)-\(client)"))
                }
                trie = try SpooledVote.grow(trie, level: level, votes, threshold: 12)
            }
            #expect(trie.unfinished == (holders == 12 ? ["rare"] : []), "\(holders)")
        }
    }

    @Test func whatCannotKeepItsPromiseDoesNotStart() async throws {
        func refusal(
            _ text: String,
            clients: Int,
            epsilon: Double,
            delta: Double = 1e-6
        ) async throws -> CoordinationError? {
            do {
                let field = try await Field(
                    text,
                    texts: [[String]](repeating: ["a"], count: clients),
                    budget: .init(epsilon: epsilon, delta: delta)
                )
                Issue.record("started")
                _ = field
                return nil
            } catch let error as CoordinationError {
                return error
            }
        }
        let few = try await refusal(Self.trie(epsilon: 4, threshold: 15, rounds: 10), clients: 50, epsilon: 10)
        #expect(few?.code == "too_few_clients" && few?.message.contains("683 clients") == true, "\(few?.message ?? "")")
        let poor = try await refusal(Self.trie(epsilon: 18, threshold: 12, rounds: 6), clients: 50, epsilon: 3)
        #expect(poor?.code == "budget_exhausted" && poor?.message.contains("nothing was opened") == true)
        let low = try await refusal(Self.trie(epsilon: 18, threshold: 6, rounds: 6), clients: 50, epsilon: 20)
        #expect(low?.code == "delta_too_large" && low?.message.contains("analytics.threshold to 11") == true)
    }

    @Test func trainingRunsHaveNoWords() async throws {
        let bench = try await Bench(.memory)
        let (run, _) = try await bench.startRun(try Bench.specification())
        let error = await #expect(throws: CoordinationError.self) {
            _ = try await bench.coordinator.vocabulary(run: run, version: "latest", minimumCount: nil)
        }
        #expect(error?.code == "not_analytics")
    }
}
