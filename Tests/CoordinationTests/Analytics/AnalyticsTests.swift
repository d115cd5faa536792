import Aggregation
import Coordination
import DifferentialPrivacy
import Foundation
import LocalTraining
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// Runs of kind `analytics` from specification to words: devices with texts, the coordinator, the ledger.
@Suite(.timeLimit(.minutes(10)))
struct AnalyticsTests {
    /// Devices that answer as the client library does, with a coordinator in between.
    private struct Field {
        let bench: Bench
        let run: String
        let clients: [String]
        let texts: [[String]]

        init(
            _ specification: RunSpecification,
            texts: [[String]],
            budget: BudgetSpecification? = nil,
            start: Bool = true
        ) async throws {
            self.texts = texts
            bench = try await Bench(.memory)
            _ = try await bench.coordinator.createPopulation(PopulationRequest(name: "p", budget: budget))
            let model = try ModelArchitectures.make(Self.description(specification.model)).initialParameters(seed: 0)
            run = try await bench.coordinator.createRun(specification, initialModel: model).id
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
                #expect(work.kind == .analyze)
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
            try await bench.coordinator.vocabularySource(run: run, version: "latest")
                .vocabulary(minimumCount: minimumCount)
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
        privacy: RunFile = [:]
    ) throws -> RunSpecification {
        try RunSpecification.sample(of: .analytics) {
            $0.privacy = privacy
            $0.cohort += ["goal": goal, "minimum": goal, "over_selection": 1]
            $0.analytics += ["method": "histogram", "words_per_client": limit, "candidates": candidates]
        }
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

    @Test(.slow) func frequentWordsAreFoundUnderNoiseAndUnclaimedOnesAreNot() async throws {
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
                privacy: ["mode": "central", "noise_multiplier": 0.8]
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
        // Counts are off by the noise alone: 8 standard deviations are exceeded by one of a thousand with 2e-12.
        let all = try await field.words(minimumCount: -1e9)
        #expect(all.items.count == candidates.count)
        for item in all.items {
            #expect(abs((item.count ?? 0) - Double(holders[item.word] ?? 0)) < 8 * error, "\(item.word)")
        }
        let mean = all.items.filter { $0.word.hasPrefix("unclaimed") }.reduce(0) { $0 + ($1.count ?? 0) } / 500
        #expect(abs(mean) < 7 * error / 500.0.squareRoot())
        let rows = try await field.bench.coordinator.ledgerRows(population: "p")
        #expect(rows.suffix(2).map(\.state) == [.reserved, .committed])
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
                privacy: ["mode": "local", "noise_multiplier": 1]
            ),
            texts: texts,
            budget: .init(epsilon: 10, delta: 1e-5)
        )
        // The devices of this bench add no noise: what is left is the server's part, which is a plain sum.
        try await field.round()
        let found = try await field.words(minimumCount: -1e9)
        #expect(found.items.map(\.count) == [60, 40, 0] && found.countError == 20)
    }

    // MARK: - Votes

    private static func votes(
        _ clients: Int,
        rounds: Int,
        privacy: RunFile = ["noise_multiplier": 2]
    ) throws -> RunSpecification {
        try RunSpecification.sample(of: .analytics) {
            $0 += ["rounds": rounds]
            $0.privacy = privacy
            $0.cohort += ["goal": clients, "minimum": clients, "over_selection": 1]
            $0.analytics.method = "votes"
        }
    }

    @Test func frequentWordsAreFoundWithoutAListAndTheChargeIsTheOneThatIsProven() async throws {
        let texts = [[String]](repeating: ["tea"], count: 40) + (0..<4).map { ["secret\($0)"] } + [[""]]
        let field = try await Field(
            Self.votes(45, rounds: 8),
            texts: texts,
            budget: .init(epsilon: 30, delta: 1e-5)
        )
        let plan = try await field.bench.coordinator.run(field.run).specification
        // A fifth of δ over eight rounds: 2.5e-7 is a normal's 5.03 standard deviations.
        let threshold = try #require(plan.privacy.threshold)
        #expect(abs(threshold - (1 + 2 * 5.026)) < 0.02 && plan.cohort.maxParticipations == 8)
        for _ in 0..<5 { try await field.round() }
        let found = try await field.words()
        // Forty votes of tea are 14 standard deviations over the threshold, three below a secret's one vote is 5: 3e-6 in all.
        #expect(found.items == [.init(word: "tea")] && found.threshold == threshold && found.unfinished == [])
        // The fifth level adds nothing, so the sixth round is neither opened nor paid for.
        let run = try await field.bench.coordinator.run(field.run)
        #expect(run.state == .completed && run.committedRounds == 5 && run.reason == nil)
        let rows = try await field.bench.coordinator.ledgerRows(population: "p")
        #expect(rows.count { $0.state == .committed && !$0.runId.isEmpty } == 5)
        #expect(rows.last?.event.contains(#""kind":"gaussian_sparse_histogram""#) == true)
        // Five levels of sensitivity 1 at four fifths of δ.
        let exact = GaussianAccountant.epsilon(delta: 0.8e-5, noiseMultiplier: 2 / 5.0.squareRoot())
        let budget = try #require(try await field.bench.coordinator.population("p").budget)
        #expect(abs(budget.spentEpsilon / exact - 1) < 1e-4 && budget.accountant == "gaussian")
        #expect(budget.claim?.relations == [.zeroOut] && budget.claim?.assumptions == [.serverAddsNoise])
        #expect(budget.claim?.delta == 1e-5)
        let audit = try LedgerAudit(
            try WireCoding.encode(await field.bench.coordinator.ledgerAudit(population: "p"))
        )
        #expect(audit.problems == [] && audit.judge == .gaussian)
        // A restart finds the same totals, and what was published.
        let again = try await field.bench.restarted()
        #expect(try await again.population("p").budget?.spentEpsilon == budget.spentEpsilon)
    }

    /// Exact counts decide nothing: what is kept follows from noised ones and from the order of nodes.
    @Test func aLevelKeepsTheLargestNoisedCounts() throws {
        let trie = PrefixTrie(levelCount: 2, nodeLimit: 2)
        let nodes = "dcba".unicodeScalars.map { PrefixTrie.Node(parent: 0, scalar: $0.value) }
        let published = zip(nodes, [5, 9, 9, 7]).map { (node: $0, noisedCount: Int64($1)) }
        let grown = TrieVotes.grow(trie, level: 1, by: published)
        #expect(grown.prefixes(level: 1) == ["b", "c"])
        // What is no child of a public prefix is left out, whatever its count.
        let stray = PrefixTrie.Node(parent: 2, scalar: 97)
        #expect(TrieVotes.grow(grown, level: 2, by: [(stray, 100)]).levels[1].isEmpty)
    }

    /// Every device answers; one file is one vote, and what is none counts for nothing.
    @Test func votesAreCountedOnceEach() throws {
        let trie = PrefixTrie(levelCount: 4, nodeLimit: 10)
        let directory = try TemporaryDirectory()
        var votes: [SpooledVote] = []
        for (client, text) in ["rare", "rare", "tea", "!!!"].enumerated() {
            var told = TrainingInstructions(
                learningRate: 1,
                batchSize: 1,
                epochs: 1,
                seed: UInt64(client),
                model: .init(architecture: "votes", config: #"{"levels": 4, "prefix_limit": 10}"#)
            )
            told.context = TrainingContext(run: "r", round: 1)
            let answer = try DeviceTrainer(texts: [text]).train(model: trie.vector, instructions: told)
            votes.append(try SpooledVote(answer.delta, directory.path + "/\(client)"))
        }
        let counts = try SpooledVote.count(trie, level: 1, votes)
        #expect(counts == [.init(parent: 0, scalar: 114): 2, .init(parent: 0, scalar: 116): 1])
    }

    /// A client that is alone with its word is published as often as is charged for it, and no more often.
    ///
    /// 40,000 releases of 1 vote at a threshold with δ_τ = 1 %: 400 ± 20; seven standard deviations are exceeded with 1e-10.
    @Test func aSingleVoteIsPublishedAsOftenAsIsCharged() throws {
        let threshold = try GaussianSparseHistogram.threshold(noiseMultiplier: 3, failureDelta: 0.01)
        let histogram = try GaussianSparseHistogram(noiseMultiplier: 3, threshold: threshold)
        let counts = [Int](repeating: 1, count: 40_000) + [Int](repeating: 0, count: 1000)
        let published = try histogram.release(counts)
        #expect(abs(published.count { $0 != nil } - 400) < 140 && published.suffix(1000).allSatisfy { $0 == nil })
        #expect(published.compactMap { $0 }.allSatisfy { histogram.votes($0) >= threshold * (1 - 1e-6) })
    }

    @Test func whatCannotKeepItsPromiseDoesNotStart() async throws {
        func refusal(
            _ specification: RunSpecification,
            clients: Int,
            epsilon: Double,
            delta: Double = 1e-5
        ) async throws -> CoordinationError? {
            do {
                let field = try await Field(
                    specification,
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
        let few = try await refusal(Self.votes(5, rounds: 8), clients: 9, epsilon: 30)
        #expect(
            few?.code == "too_few_clients" && few?.message.contains("enrol 12 or more") == true,
            "\(few?.message ?? "")"
        )
        let poor = try await refusal(Self.votes(5, rounds: 8), clients: 20, epsilon: 3)
        #expect(
            poor?.code == "budget_exhausted" && poor?.message.contains("its epsilon ends") == true,
            "\(poor?.message ?? "")"
        )
        // A threshold that somebody chose: one single vote in seven hundred would be published.
        let low = try await refusal(
            Self.votes(5, rounds: 8, privacy: ["noise_multiplier": 2, "threshold": 7]),
            clients: 20,
            epsilon: 30
        )
        #expect(
            low?.code == "budget_exhausted" && low?.message.contains("its delta ends") == true,
            "\(low?.message ?? "")"
        )
        let old = try await refusal(
            RunSpecification.sample(of: .analytics) { $0.analytics += ["method": "triehh", "epsilon": 4] },
            clients: 1,
            epsilon: 30
        )
        #expect(old?.code == "method_withdrawn" && old?.message.contains("work together") == true)
    }

    /// Votes after training have the hundredth of δ that is set aside beside it, and a target is met with what comes after.
    @Test func votesAfterTrainingFailLessOften() async throws {
        let field = try await Field(
            try Self.histogram(["a"], goal: 20, limit: 1, privacy: ["mode": "central", "noise_multiplier": 4]),
            texts: [[String]](repeating: ["a"], count: 20),
            budget: .init(epsilon: 30, delta: 1e-5)
        )
        try await field.round()
        let coordinator = field.bench.coordinator
        let document = try Self.votes(20, rounds: 4, privacy: ["target": ["epsilon": 4]])
        let view = try await coordinator.createRun(
            document,
            initialModel: PrefixTrie(levelCount: 4, nodeLimit: 1000).vector
        )
        let privacy = view.specification.privacy
        let histogram = try GaussianSparseHistogram(
            noiseMultiplier: privacy.noiseMultiplier,
            threshold: try #require(privacy.threshold)
        )
        #expect(histogram.failureDelta * 4 <= 1e-7 && histogram.failureDelta * 4 > 0.9e-7)
        let alone = GaussianAccountant.epsilon(delta: 0.8e-5, noiseMultiplier: privacy.noiseMultiplier / 2)
        #expect(alone <= 4 && alone > 3.99)
        _ = try await coordinator.startRun(view.id)
        let claim = try #require(try await coordinator.population("p").budget?.claim)
        #expect(abs(claim.delta / 1.05e-5 - 1) < 1e-9 && claim.accountant == "gaussian")
    }

    /// A run of the withdrawn method that a server finds at its start ends with its reason; what it published stays.
    @Test func aStoredRunOfTheWithdrawnMethodEndsAtStart() async throws {
        let field = try await Field(
            Self.votes(20, rounds: 3),
            texts: [[String]](repeating: ["tea"], count: 20),
            budget: .init(epsilon: 30, delta: 1e-5)
        )
        try await field.round()
        let old = try WireCoding.encode(
            RunSpecification.sample(of: .analytics) {
                $0.rounds = 3
                $0.analytics += ["method": "triehh", "epsilon": 4]
            }
        )
        let store = EditedStore(field.bench.store) { state in
            for index in state.runs.indices { state.runs[index].specification = String(decoding: old, as: UTF8.self) }
        }
        let again = try await Bench.start(field.bench.directory, field.bench.clock, store)
        let run = try await again.run(field.run)
        #expect(run.state == .failed && run.reason == "method_withdrawn" && run.committedRounds == 1)
        let words = try await again.vocabularySource(run: field.run, version: "latest").vocabulary(minimumCount: nil)
        #expect(words.method == .triehh && words.threshold == 15)
        let rows = try await again.ledgerRows(population: "p")
        #expect(rows.suffix(2).map(\.state) == [.reserved, .released])
        #expect(try await again.rounds(run: field.run).last?.state == .abandoned)
    }

    @Test func trainingRunsHaveNoWords() async throws {
        let bench = try await Bench(.memory)
        let (run, _) = try await bench.startRun(try Bench.specification())
        let error = await #expect(throws: CoordinationError.self) {
            _ = try await bench.coordinator.vocabularySource(run: run, version: "latest").vocabulary(minimumCount: nil)
        }
        #expect(error?.code == "not_analytics")
    }
}
