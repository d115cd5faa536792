import Foundation
import LocalTraining
import Tensors
import Testing

struct TokenizerTests {
    private static let corpus = [
        "the cat sat on the mat, the dog sat on the log", "I'll see you at 10:30; you're late, aren't you?",
        "春眠不覺曉，處處聞啼鳥。夜來風雨聲，花落知多少。", "مرحبا بالعالم, naïve café — déjà vu",
        "\u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467} emoji 👍🏽",
    ]

    private func trained(_ size: Int = 330) -> ByteLevelBPE {
        var trainer = BPETrainer()
        for text in Self.corpus { trainer.add(text, count: 3) }
        return trainer.train(vocabularySize: size)
    }

    @Test func bytePairsRoundTripEverything() {
        let tokenizer = trained()
        for text in Self.corpus + ["", " ", "  \n\t ", "\u{FEFF}x\0y", "ไทย 日本語 한국어"] {
            #expect(tokenizer.decode(tokenizer.encode(text)).unicodeScalars.elementsEqual(text.unicodeScalars))
        }
        var generator = Xoshiro256StarStar(seed: 11)
        for length in 0..<60 {
            let bytes = (0..<length).map { _ in UInt8(truncatingIfNeeded: generator.next()) }
            #expect(tokenizer.bytes(of: tokenizer.encode(bytes: bytes)) == bytes)
        }
        #expect(tokenizer.encode(Self.corpus[0]).count < Self.corpus[0].utf8.count)
    }

    @Test func theMostFrequentPairIsMergedFirst() {
        var trainer = BPETrainer()
        trainer.add("abab abab cdcd")
        let tokenizer = trainer.train(vocabularySize: 263)
        // ab occurs 4 times; then abab and " a"+... : "ab"+"ab" twice, " "+"abab" once; of pairs that occur twice the
        // smallest byte strings come first: "ab"+"ab" before "c"+"d".
        #expect(tokenizer.bytes(of: [260]) == Array("ab".utf8))
        #expect(tokenizer.bytes(of: [261]) == Array("abab".utf8))
        #expect(tokenizer.bytes(of: [262]) == Array("cd".utf8))
        #expect(trainer.train(vocabularySize: 10_000).vocabularySize == 263)
    }

    @Test func tokenizerFilesAreReadAndWritten() throws {
        let tokenizer = trained()
        let file = tokenizer.huggingFaceJSON()
        let copy = try ByteLevelBPE(huggingFace: file)
        #expect(copy.huggingFaceJSON() == file)
        #expect(copy.specials.begin == 2 && copy.specials.end == 3 && copy.specials.ordinary == 4..<330)
        for text in Self.corpus { #expect(copy.encode(text) == tokenizer.encode(text)) }
        #expect(copy.encode("a<eos>b").contains(3))
    }

    @Test(arguments: [
        (#""type":"BPE""#, #""type":"Unigram""#, "Unigram"),
        (#""normalizer":null"#, #""normalizer":{"type":"NFC"}"#, "normalizer"),
        (#""byte_fallback":false"#, #""byte_fallback":true"#, "byte_fallback"),
        (#""dropout":null"#, #""dropout":0.1"#, "dropout"),
        (#""pre_tokenizer":{"type":"ByteLevel""#, #""pre_tokenizer":{"type":"Split""#, "pre_tokenizer"),
        (#""lstrip":false"#, #""lstrip":true"#, "lstrip"), (#""merges":["#, #""merges":["zz zz","#, "merges/0"),
        // Foundation's reader takes these two, and of a name that comes twice one of the values.
        (#""byte_fallback":false"#, #""byte_fallback":false,"byte_fallback":true"#, "not valid JSON"),
        (#""merges":["#, #""merges":[,"#, "not valid JSON"),
    ])
    func foreignArithmeticIsRefusedByName(old: String, new: String, name: String) throws {
        let file = String(decoding: trained().huggingFaceJSON(), as: UTF8.self)
        let changed = file.replacingOccurrences(of: old, with: new)
        #expect(changed != file)
        let error = #expect(throws: TokenizerError.self) { try ByteLevelBPE(huggingFace: Data(changed.utf8)) }
        #expect(error?.description.contains(name) == true)
    }

    @Test func preTokensFollowTheExpression() {
        // Each piece becomes its own run of tokens: with every byte a token, pieces show in what never merges.
        var trainer = BPETrainer()
        trainer.add("a'll b  c\n\n d1!? é", count: 2)
        let tokenizer = trainer.train(vocabularySize: 400)
        func pieces(_ text: String) -> [String] { tokenizer.encode(text).map { tokenizer.decode([$0]) } }
        #expect(pieces("a'll b  c\n\n d1!? é") == ["a", "'ll", " b", " ", " c", "\n\n", " d", "1", "!?", " é"])
    }

    @Test func huggingFaceGivesEqualIds() throws {
        guard let python = Peer.python(importing: "tokenizers") else { return }
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent("tokenizer-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        let texts =
            Self.corpus + [
                "  leading", "trailing  ", "a\n\nb\t c", "x²½Ⅷ", "it's 'sword' '", "<eos>x <bos>", "한국어 ไทย",
            ]
        try JSONEncoder().encode(texts).write(to: directory.appendingPathComponent("texts.json"))
        try trained().huggingFaceJSON().write(to: directory.appendingPathComponent("ours.json"))
        let script = """
            import json, sys
            from tokenizers import Tokenizer, models, pre_tokenizers, decoders, trainers
            folder = sys.argv[1]
            texts = json.load(open(folder + "/texts.json"))
            theirs = Tokenizer(models.BPE())
            theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            theirs.decoder = decoders.ByteLevel()
            theirs.train_from_iterator(texts * 3, trainers.BpeTrainer(vocab_size=350, show_progress=False,
                special_tokens=["<pad>", "<unk>", "<bos>", "<eos>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
            theirs.save(folder + "/theirs.json")
            ours = Tokenizer.from_file(folder + "/ours.json")
            print(json.dumps([[t.encode(x, add_special_tokens=False).ids for x in texts] for t in (ours, theirs)]))
            """
        let output = try Peer.run(python, script, [directory.path])
        let ids = try JSONDecoder().decode([[[Int]]].self, from: output)
        let ours = try ByteLevelBPE(huggingFace: trained().huggingFaceJSON())
        let theirs = try ByteLevelBPE(huggingFace: Data(contentsOf: directory.appendingPathComponent("theirs.json")))
        for (index, text) in texts.enumerated() {
            #expect(ours.encode(text) == ids[0][index], "\(text)")
            #expect(theirs.encode(text) == ids[1][index], "\(text)")
        }
    }

    @Test func wordsAreRunsOfLetters() {
        #expect(
            WordTokenizer.tokens(of: "Don’t STOP, it's 'ere 3rd x'--y!")
                == ["don't", "stop", ",", "it's", "'", "ere", "3rd", "x", "'", "-", "-", "y", "!"]
        )
        #expect(WordTokenizer.tokens(of: "春眠a覺 👨‍👩‍👧👍") == ["春", "眠", "a", "覺", "👨‍👩‍👧", "👍"])
        #expect(WordTokenizer.tokens(of: "see <url>, ok <b>") == ["see", "<url>", ",", "ok", "<", "b", ">"])
        let tokenizer = WordTokenizer(vocabulary: ["hello", ",", "world", "!"])
        #expect(tokenizer.encode("Hello, brave world!") == [4, 5, 1, 6, 7])
        #expect(tokenizer.decode([2, 4, 5, 6, 7, 3]) == "hello, world!")
    }

    @Test func vocabularyFilesKeepEveryCharacter() throws {
        let characters = CharacterTokenizer(alphabet: "\n\r\\ aé春").alphabet.unicodeScalars.map { String($0) }
        let text = VocabularyFile.encode(characters)
        #expect(try VocabularyFile.decode(text) == characters)
        for bad in ["a\nb\n", "<pad>\n<unk>\n<bos>\n<eos>\na\na\n", "<pad>\n<unk>\n<bos>\n<eos>\n\nb\n"] {
            #expect(throws: TokenizerError.self) { try VocabularyFile.decode(bad) }
        }
    }

    @Test func shakespeareHasTheExpectedWords() throws {
        struct Partition: Decodable {
            struct Words: Decodable {
                var trainTokens: Int
                var testTokens: Int
                var trainDistinct: Int
                var testUnkTokens: Int
                var firstIdsOfFirstCitizen: [Int]
            }
            var wordTokens: Words
        }
        guard let text = SharedData.text("shakespeare.txt"),
            let expected = try SharedData.json("shakespeare-partition.json", as: Partition.self)?.wordTokens
        else { return }
        let roles = PlayScript.roles(in: text).filter { $0.lines.count >= 2 }
        #expect(roles.count == 268)
        let split = roles.map { max(1, min(8 * $0.lines.count / 10, $0.lines.count - 1)) }
        let training = zip(roles, split).flatMap { $0.lines[..<$1] }
        let test = zip(roles, split).flatMap { $0.lines[$1...] }
        let tokens = training.flatMap { WordTokenizer.tokens(of: $0) }
        #expect(tokens.count == expected.trainTokens)
        #expect(Set(tokens).count == expected.trainDistinct)
        let tokenizer = WordTokenizer(vocabulary: WordTokenizer.vocabulary(of: training, size: 2000))
        let ids = test.flatMap { tokenizer.encode($0) }
        #expect(ids.count == expected.testTokens)
        #expect(ids.filter { $0 == 1 }.count == expected.testUnkTokens)
        #expect(tokenizer.vocabulary.last == "ope")
        let first = roles[0].lines.flatMap { tokenizer.encode($0) }
        #expect(Array(first.prefix(12)) == expected.firstIdsOfFirstCitizen)
        #expect(CharacterTokenizer.alphabet(of: [text]).unicodeScalars.count == 65)
    }
}
