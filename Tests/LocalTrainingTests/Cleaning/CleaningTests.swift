import Foundation
import LocalTraining
import Tensors
import Testing

struct CleaningTests {
    private func clean(_ records: [String], _ options: CleaningOptions = .init()) -> CleaningResult {
        TextCleaner(options).clean(records)
    }

    @Test(arguments: [
        ("see https://example.com/a?b=1, now", "see <url>, now"), ("see http:// now", "see http:// now"),
        ("go to www.example.org.", "go to <url>."), ("awww.no", "awww.no"), ("看 https://例子.cn/路）好", "看 <url>）好"),
        ("mail me.too@mail.example.co.uk!", "mail <email>!"), ("not@mail", "not@mail"), ("a @ b.com", "a @ b.com"),
        ("pay DE89 3704 0044 0532 0130 00 thanks", "pay <iban> thanks"),
        ("pay GB82WEST12345698765432 now", "pay <iban> now"),
        ("pay GB82WEST12345698765433 now", "pay GB82WEST<number> now"),
        ("id 11010519491231002X ok", "id <id> ok"), ("id 110105194912310021 ok", "id <number> ok"),
        ("id 110105491231002 ok", "id <id> ok"), ("id 110105499931002 ok", "id <number> ok"),
        ("ssn 078-05-1120 ok", "ssn <id> ok"), ("ssn 666-05-1120 ok", "ssn <number> ok"),
        ("ssn 078-00-1120 ok", "ssn <number> ok"),
        ("card 4111 1111 1111 1111 ok", "card <card> ok"), ("card 4111111111111112 ok", "card <number> ok"),
        ("card 5500-0000-0000-0004 ok", "card <card> ok"), ("card 378282246310005 ok", "card <card> ok"),
        ("call 13800138000 ok", "call <phone> ok"), ("call +86 138 0013 8000 ok", "call <phone> ok"),
        ("call 12800138000 ok", "call <number> ok"), ("call 010-62345678 ok", "call <phone> ok"),
        ("call +44 20 7946 0958 ok", "call <phone> ok"), ("plus +1234567 ok", "plus +1234567 ok"),
        ("call (415) 555-2671 ok", "call <phone> ok"), ("call (41) 555-2671 ok", "call (41) 555-2671 ok"),
        ("host 192.168.1.254 ok", "host <ip> ok"), ("version 1.2.3.999 ok", "version 1.2.3.999 ok"),
        ("host fe80::1ff:fe23:4567:890a ok", "host <ip> ok"), ("2001:db8:0:0:0:0:2:1 ok", "<ip> ok"),
        ("std::vector at 12:30:45", "std::vector at 12:30:45"), ("mac 00:1a:2b:3c:4d:5e ok", "mac <ip> ok"),
        ("mac 00:1a:2b:3c:4d ok", "mac 00:1a:2b:3c:4d ok"), ("order 123456789 ok", "order <number> ok"),
        ("order 12345678 ok", "order 12345678 ok"), ("year 1999 and 2024", "year 1999 and 2024"),
    ])
    func personalDataAreReplacedByForm(text: String, expected: String) {
        #expect(PersonalDataRedactor.redact(text) == expected)
        #expect(PersonalDataRedactor.redact(expected) == expected)
    }

    @Test(arguments: [
        ("full-width １２ＡＢｚ text", "full-width 12ABz text"), ("e\u{301}tude for two", "étude for two"),
        ("so\u{AD}ft hy\u{200B}phen\u{202E} text\u{7}", "soft hyphen text"),
        ("می\u{200C}خواهم بروم", "می\u{200C}خواهم بروم"),
        ("tabs\tand   spaces\r\n\r\n\r\nand lines", "tabs and spaces\n\nand lines"),
        ("  sooooooooo good  ", "sooooo good"),
        ("private\u{E000} use text", "private use text"),
    ])
    func textIsNormalised(text: String, expected: String) {
        let records = clean([text]).records
        #expect(records.count == 1 && records[0].unicodeScalars.elementsEqual(expected.unicodeScalars))
    }

    @Test func runsOfDigitsAreNotShortened() {
        #expect(clean(["the card is 4444444444444448 ok"]).records == ["the card is <card> ok"])
    }

    @Test func brokenEncodingIsRepairedOrDropped() {
        let long = Array(String(repeating: "good words here and there, ", count: 5).utf8)
        let result = TextCleaner(.init(removesDuplicates: false)).clean(bytes: [
            long + [0xFF], Array("ab cd ef".utf8) + [0xC3, 0x28],
        ])
        #expect(result.records.count == 1)
        #expect(result.records.first?.contains("\u{FFFD}") == true)
        #expect(result.counts[.invalidEncoding] == 1)
    }

    @Test(arguments: [
        (CleaningRule.tooShort, "abc", "abcd"), (.fewLetters, "a. -- !! .. ;;", "words, more."),
        (.manyDigits, "abcdefgh 1234567", "abcdefgh 123"), (.manySymbols, "wordsword $$$ %%%", "words and a $"),
        (.wordLength, "a b c d e f g", "an old cat is in"),
        (.wordLength, "incomprehensibilitiesandotherunendingwords", "incomprehensibilities"),
        (
            .repetition, String(repeating: "ha ho ", count: 12),
            "one two three four five six seven eight nine ten " + "ha ha ha ha ha ha ha ha ha ha ha ha"
        ),
    ])
    func qualityHasLimits(rule: CleaningRule, bad: String, good: String) {
        let dropped = clean([bad])
        #expect(dropped.records.isEmpty && dropped.counts[rule] == 1)
        #expect(clean([good]).records.count == 1)
    }

    @Test func longRecordsAreSplitAtSentences() {
        let text = (0..<60).map {
            "The fox number w\(String(100 + $0 * $0, radix: 17)) met the dog of q\(String(7000 + 31 * $0, radix: 19))."
        }
        .joined(separator: " ")
        let result = clean([text], .init(removesDuplicates: false))
        #expect(result.counts[.split] == 1)
        #expect(result.records.count == 2)
        #expect(result.records.allSatisfy { $0.count <= 2000 && $0.hasSuffix(".") })
        #expect(result.records.joined(separator: " ") == text)
        // Without any end of a sentence the cut is where it must be.
        let block = clean([String(repeating: "ab", count: 1500)], .init(removesDuplicates: false))
        #expect(block.counts[.wordLength] == 2)
    }

    @Test(arguments: [
        ("en", "the cat is on the table and it was good"), ("de", "der Hund ist nicht im Haus und das ist gut"),
        ("fr", "le chat est dans la maison et il est pour vous"), ("es", "el perro no es de la casa y los gatos"),
        ("it", "il gatto non è della casa e sono di un altro"), ("pt", "o gato não é da casa e os cães com uma"),
        ("nl", "het is niet de hond van een man en ik ook"), ("zh", "春眠不覺曉，處處聞啼鳥"), ("ja", "今日はとても良い天気です"),
        ("ko", "오늘은 날씨가 좋습니다"), ("ru", "сегодня хорошая погода"), ("ar", "الطقس جميل اليوم"), ("hi", "आज मौसम अच्छा है"),
        ("th", "วันนี้อากาศดีมาก"), ("und", "lorem ipsum dolor sit amet"),
    ])
    func languagesAreToldApart(code: String, text: String) {
        #expect(TextProfile(text).language == code)
        #expect(clean([text], .init(language: code)).records.count == 1)
        let other = code == "en" ? "fr" : "en"
        let kept = clean([text], .init(language: other, keepsUndetermined: false))
        #expect(kept.records.isEmpty && kept.counts[.language] == 1)
    }

    @Test func duplicatesAreDropped() {
        let long =
            "we will meet at the old station near the river tomorrow morning and then walk to the market together"
        let result = clean([
            "Hello there, friend!", "hello THERE friend", long, long + " friend",
            "something else entirely is written here",
        ])
        #expect(result.records == ["Hello there, friend!", long, "something else entirely is written here"])
        #expect(result.counts[.duplicate] == 1)
        #expect(result.counts[.nearDuplicate] == 1)
        // Templates with different numbers meet after redaction.
        #expect(clean(["your code is 123456789 today", "your code is 987654321 today"]).records.count == 1)
    }

    /// The standard error of an estimate of 128 hashes is at most 0.045; 0.1 is exceeded by some pairs in a hundred, so the
    /// seed is fixed, and the mean error over 200 pairs, whose standard error is 0.003, is held to 0.015.
    @Test func similaritiesAreEstimatedWell() {
        var generator = Xoshiro256StarStar(seed: 21)
        let words = (0..<300).map { "w\(String($0, radix: 36))x" }
        var (errors, worst) = (0.0, 0.0)
        for _ in 0..<200 {
            let left = (0..<60).map { _ in words[generator.nextIndex(below: 300)] }
            var right = left
            for _ in 0..<generator.nextIndex(below: 20) {
                right[generator.nextIndex(below: 60)] = words[generator.nextIndex(below: 300)]
            }
            let texts = [left, right].map { $0.joined(separator: " ") }
            let sets = texts.map { Set(NearDuplicates.shingles(of: $0)) }
            let truth = Double(sets[0].intersection(sets[1]).count) / Double(sets[0].union(sets[1]).count)
            let estimate = NearDuplicates.similarity(
                NearDuplicates.signature(texts[0]),
                NearDuplicates.signature(texts[1])
            )
            errors += estimate - truth
            worst = max(worst, abs(estimate - truth))
        }
        #expect(worst < 0.13)
        #expect(abs(errors / 200) < 0.015)
    }

    @Test func cleaningTwiceIsCleaningOnce() {
        var generator = Xoshiro256StarStar(seed: 5)
        let parts = [
            "hello ", "world", "  ", "\t", "\r\n", "\n\n\n", "http://x.y/z", "www.a.b", "me@ex.com", "1380013", "8000",
            "4111 1111 ",
            "1111 1111", "-", "é", "e\u{301}", "\u{200B}", "春眠", "，", "。", "＜", "１２３", "!!!!!!!!", "aaaaaaaaaa", "+44 ",
            "20 7946", ".",
            "<url>", "<", ">", "DE89 3704", " 0044 0532 0130 00", "192.168", ".1.1", "\u{1F600}", "the ", "of ", "to ",
            ":", "::", "ff",
        ]
        let records = (0..<400).map { _ in
            (0..<(1 + generator.nextIndex(below: 14))).map { _ in parts[generator.nextIndex(below: parts.count)] }
                .joined()
        }
        let once = clean(records)
        let twice = clean(once.records)
        for (left, right) in zip(once.records, twice.records) { #expect(left == right) }
        #expect(once.records.count == twice.records.count)
        #expect(once.records.count > 20)
    }

    @Test func reportsAndMinimaAreOfWhatIsLeft() throws {
        let rules = DataRules(cleaning: .init(), minimumRecords: 2)
        let (data, report) = try rules.apply(to: .texts(["mail me@example.com today", "春眠不覺曉", "x"]))
        guard case .texts(let texts) = data else {
            Issue.record("texts became a table")
            return
        }
        #expect(texts == ["mail <email> today", "春眠不覺曉"])
        #expect(report.recordsRead == 3 && report.records == 2 && report.characters == 23)
        #expect(report.rules == ["email": 1, "too_short": 1])
        #expect(report.languages == ["und": 1, "zh": 1])
        #expect(throws: LocalTrainingError.self) { try rules.apply(to: .texts(["only one line"])) }
        #expect(throws: LocalTrainingError.self) {
            try DataRules(minimumCharacters: 100).apply(to: .texts(["short", "too"]))
        }
        let table = try Table(header: ["a", "b"], rows: [["1", ""], ["2", "3"]])
        #expect(try DataRules.none.apply(to: .table(table)).report.missing == ["b": 0.5])
    }

    @Test func trainingUsesCleanText() throws {
        let configuration = CIFGLSTMConfiguration(vocabularySize: 52, embeddingDimension: 4, hiddenDimension: 4)
        let seen = Recorder()
        let trainer = DeviceTrainer(data: .texts(["call 13800138000 now", "call 13900139000 now", "!!"])) {
            seen.note($0)
        }
        var instructions = TrainingInstructions(learningRate: 0.1, batchSize: 1, epochs: 1, seed: 1)
        instructions.data = DataRules(cleaning: .init())
        let result = try trainer.train(model: configuration.initialParameters(seed: 1), instructions: instructions)
        #expect(result.exampleCount == 1)
        #expect(seen.last?.rules["phone"] == 2)
        instructions.data.minimumRecords = 2
        #expect(throws: LocalTrainingError.self) {
            try trainer.train(model: configuration.initialParameters(seed: 1), instructions: instructions)
        }
    }

    private final class Recorder: @unchecked Sendable {
        // SAFETY: the trainer reports on the thread that called it.
        private(set) var last: DataReport?
        func note(_ report: DataReport) { last = report }
    }
}
