import LocalTraining
import Tensors
import Testing

/// What a device answers to runs of kind `analytics`, made of its texts.
struct WordAnalysisTests {
    private func instructions(
        _ architecture: String,
        _ config: String,
        round: Int = 1,
        seed: UInt64 = 1
    ) -> TrainingInstructions {
        var instructions = TrainingInstructions(
            learningRate: 1,
            batchSize: 1,
            epochs: 1,
            seed: seed,
            model: ModelDescription(architecture: architecture, config: config)
        )
        instructions.context = TrainingContext(run: "r", round: round)
        return instructions
    }

    private func counts(_ texts: [String], _ candidates: [String], limit: Int = 20, seed: UInt64 = 1) throws -> [Float]
    {
        let list = candidates.map { "\"\($0)\"" }.joined(separator: ", ")
        let config = #"{"words_per_client": \#(limit), "tokenizer": {"type": "word", "vocabulary": [\#(list)]}}"#
        let told = instructions("histogram", config, seed: seed)
        let model = ParameterVector(zeros: .init([.init(name: "counts", shape: [candidates.count])]))
        let result = try DeviceTrainer(texts: texts).train(model: model, instructions: told)
        #expect(result.exampleCount == 1)
        return result.delta.values
    }

    @Test func aWordCountsOnceHoweverOftenItIsUsed() throws {
        #expect(try counts(["The sea, the SEA!", "a ship"], ["sea", "ship", "island"]) == [1, 1, 0])
    }

    @Test func standInsForPersonalDataAreNoWords() throws {
        #expect(try counts(["write to <email> now"], ["email", "now"]) == [0, 1])
    }

    @Test func theMostUsedWordsCountAndTiesAreDrawn() throws {
        let texts = ["a a a b b c d e f"]
        let all = ["a", "b", "c", "d", "e", "f"]
        var drawn = Set<[Float]>()
        for seed in 0..<40 {
            let values = try counts(texts, all, limit: 3, seed: UInt64(seed))
            #expect(values.reduce(0, +) == 3 && values[0] == 1 && values[1] == 1)
            drawn.insert(values)
        }
        // Each of four words is left out by 40 fair draws with probability 4 (3/4)^40 = 4e-5; the seeds are fixed.
        #expect(drawn.count == 4)
    }

    @Test func candidatesThatNoTextCanHoldAreRefused() {
        for (word, position) in [("New York", 1), ("Sea", 1), ("a", 1)] {
            #expect(throws: ModelConfigurationError.self) {
                _ = try ModelArchitectures.make(
                    .init(
                        architecture: "histogram",
                        config: #"{"tokenizer": {"type": "word", "vocabulary": ["a", "\#(word)"]}}"#
                    )
                )
            }
            do {
                _ = try counts(["x"], ["a", word])
            } catch {
                #expect("\(error)".contains("vocabulary/\(position)"), "\(error)")
            }
        }
    }

    private func vote(
        _ texts: [String],
        _ trie: PrefixTrie,
        round: Int,
        seed: UInt64 = 1,
        tokens: String = "word"
    ) throws -> [Float] {
        let config = #"{"levels": \#(trie.levelCount), "prefix_limit": \#(trie.nodeLimit), "tokens": "\#(tokens)"}"#
        let told = instructions(trie.levelCount == 2 ? "triehh" : "votes", config, round: round, seed: seed)
        let result = try DeviceTrainer(texts: texts).train(model: trie.vector, instructions: told)
        #expect(result.delta.layout == PrefixTrie.voteLayout)
        return result.delta.values
    }

    @Test func aVoteIsTheNextLetterOfOneOwnWord() throws {
        var trie = PrefixTrie(levelCount: 5, nodeLimit: 4)
        #expect(try vote(["sun"], trie, round: 1) == [0, Float(UInt8(ascii: "s"))])
        trie.setLevel(1, ["m", "s"].map { .init(parent: 0, scalar: ($0 as Unicode.Scalar).value) })
        #expect(try vote(["sun"], trie, round: 2) == [1, Float(UInt8(ascii: "u"))])
        // A word that ends there votes for its end; one whose prefix is not in the trie has no vote.
        #expect(try vote(["s"], trie, round: 2) == [1, 0])
        #expect(try vote(["art"], trie, round: 2) == [-1, 0])
        #expect(try vote(["!!! ..."], PrefixTrie(levelCount: 5, nodeLimit: 4), round: 1) == [-1, 0])
    }

    @Test func aWordThatHasEndedHasNoFurtherVote() throws {
        var trie = PrefixTrie(levelCount: 4, nodeLimit: 4)
        trie.setLevel(1, [.init(parent: 0, scalar: 0x61)])
        trie.setLevel(2, [.init(parent: 0, scalar: 0)])
        #expect(try vote(["a"], trie, round: 3) == [-1, 0])
        #expect(try vote(["abc"], trie, round: 3) == [-1, 0])
    }

    @Test func wordsAreVotedForAsOftenAsTheyAreUsed() throws {
        var first = 0
        for seed in 0..<400
        where try vote(["a a a b"], PrefixTrie(levelCount: 2, nodeLimit: 4), round: 1, seed: UInt64(seed))[1] == 97 {
            first += 1
        }
        // Bin(400, 3/4): 300 with a standard deviation of 8.7; outside 240...360 by chance with 1e-11. Seeds are fixed.
        #expect((240...360).contains(first))
    }

    @Test func wholeRecordsAndChineseAreFoundCharacterByCharacter() throws {
        let trie = PrefixTrie(levelCount: 6, nodeLimit: 4)
        let sky = try #require(("天" as Unicode.Scalar?)?.value)
        #expect(try vote(["天气怎么样"], trie, round: 1, tokens: "record") == [0, Float(sky)])
        #expect(try counts(["天气"], ["天", "气", "水"]) == [1, 1, 0])
    }
}
