import LocalTraining
import Testing

/// What cleaning keeps, whatever people write with.
struct ScriptTests {
    private func kept(_ text: String) -> (records: [String], counts: [CleaningRule: Int]) {
        let result = TextCleaner().clean([text])
        return (result.records, result.counts)
    }

    @Test(arguments: [
        "hi mum 👨‍👩‍👧‍👦", "we won 🏴󠁧󠁢󠁥󠁮󠁧󠁿 today boys", "明天见👩‍❤️‍👨我等你", "good night ❤️", "yes 👍🏽 ok", "happy birthday 🎂🎉",
        "1️⃣ first things first",
        "flags 🇩🇪🇫🇷 here and there",
    ])
    func emojiAreOneCharacterEach(text: String) {
        let (records, counts) = kept(text)
        #expect(records == [text], "\(counts)")
        #expect(records.first?.unicodeScalars.elementsEqual(text.unicodeScalars) == true)
    }

    @Test(arguments: [
        ("Khmer", "ថ្ងៃនេះអាកាសធាតុល្អណាស់ហើយយើងនឹងទៅផ្សារ"), ("Lao", "ມື້ນີ້ອາກາດດີຫຼາຍແລະພວກເຮົາຈະໄປຕະຫຼາດ"),
        ("Burmese", "ဒီနေ့ရာသီဥတုကောင်းပါတယ်ကျွန်တော်တို့ဈေးသွားမယ်"), ("Tibetan", "དེ་རིང་གནམ་གཤིས་ཡག་པོ་རེད་ང་ཚོ་ཁྲོམ་ལ་འགྲོ་གི་ཡིན།"),
        ("Thai", "วันนี้อากาศดีมากและเราจะไปตลาดกันตอนเย็น"), ("Javanese", "ꦱꦸꦒꦼꦁꦫꦮꦸꦃꦲꦶꦁꦏꦧꦸꦥꦠꦺꦤ꧀"), ("Balinese", "ᬅᬓ᭄ᬱᬭᬩᬮᬶᬲᬫ᭄ᬧᬸᬦ᭄"),
        ("Japanese", "今日はとても良い天気なので市場へ行きます"), ("Chinese", "今天天气很好我们去市场吧"), ("Yi", "ꆈꌠꁱꂷꆈꌠꉙꃀꌋꆀ"),
        ("Tai Lue", "ᦅᧄᦺᦑᦟᦹᧉᦅᧄᦺᦑᦟᦹᧉ"), ("German", "Rechtsschutzversicherungsgesellschaft Donaudampfschifffahrt"),
        ("Amharic", "ዛሬ፡አየሩ፡ጥሩ፡ነው፡ወደ፡ገበያ፡እንሄዳለን"), ("Persian", "امروز هوا خیلی خوب است و می\u{200C}رویم بازار"),
        ("Hindi", "आज मौसम बहुत अच्छा है हम बाज़ार जाएंगे"), ("Tamil", "இன்று வானிலை நன்றாக இருக்கிறது"),
    ])
    func sentencesOfEveryScriptAreKept(name: String, text: String) {
        let (records, counts) = kept(text)
        #expect(records.count == 1, "\(name): \(counts)")
    }

    @Test func lettersWithoutEndAreStillNoLanguage() {
        let text = String(repeating: "qxzjv", count: 12)
        #expect(kept(text).counts[.wordLength] == 1)
        #expect(kept((0..<5).map { _ in "aGVsbG8gd29ybGQgaGVs" }.joined(separator: " ")).records.isEmpty)
        #expect(kept("!!! ??? 👍👍👍👍👍 ok").counts[.fewLetters] == 1)
    }

    @Test(arguments: ["\u{0}", "\u{85}", "\u{B}", "\u{C}", "\u{1C}", "\u{2028}", "\u{2029}"])
    func controlsBetweenWordsBecomeSpaces(control: String) {
        #expect(kept("see you\(control)at noon").records == ["see you at noon"])
    }
}
