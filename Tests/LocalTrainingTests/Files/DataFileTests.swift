import Foundation
import LocalTraining
import Testing

/// What a file is, is told by what it holds.
struct DataFileTests {
    private func table(_ text: String, _ name: String, _ encoding: String.Encoding = .utf8) throws -> [[String]] {
        try table(try #require(text.data(using: encoding)), name)
    }

    private func table(_ data: Data, _ name: String) throws -> [[String]] {
        guard case .table(let table) = try DataFile(data, name: name).localData(field: nil) else { return [] }
        return [table.header] + table.rows
    }

    private func texts(_ data: Data, _ name: String, field: String = "text") throws -> [String] {
        try DataFile(data, name: name).texts(field: field)
    }

    @Test(arguments: [
        ("a,b\n1,2\n3,4\n", "t.csv"), ("a,b\r\n1,2\r\n3,4\r\n", "t.CSV"), ("a,b\r1,2\r3,4\r", "t.Csv"),
        ("a;b\n1;2\n3;4\n", "t.csv"), ("a\tb\n1\t2\n3\t4\n", "t.tsv"), ("a\tb\r\n1\t2\r\n3\t4", "t.txt"),
        ("a|b\n1|2\n3|4\n", "t.csv"), ("sep=;\na;b\n1;2\n3;4\n", "t.csv"), ("\n a, b\n1,2\n3,4\n", "t.csv"),
        ("a,b\n1,2\n3,4\n", "noname"), ("\"a\",\"b\"\n\"1\",\"2\"\n\"3\",\"4\"\n", "t.csv"),
        (#"[{"a": 1, "b": "2"}, {"b": "4", "a": 3}]"#, "t.json"), ("{\"a\": 1, \"b\": 2}\n{\"a\": 3, \"b\": 4}\n", "t"),
    ])
    func tablesAreFoundByContent(text: String, name: String) throws {
        #expect(try table(text, name) == [["a", "b"], ["1", "2"], ["3", "4"]])
    }

    @Test func aMarkSaysTheEncoding() throws {
        let csv = "a,b\r\n1,2\r\n3,é\r\n"
        let expected = [["a", "b"], ["1", "2"], ["3", "é"]]
        func marked(_ mark: [UInt8], _ encoding: String.Encoding) throws -> Data {
            Data(mark) + (try #require(csv.data(using: encoding)))
        }
        #expect(try table(marked([0xFF, 0xFE], .utf16LittleEndian), "t.csv") == expected)
        #expect(try table(marked([0xFE, 0xFF], .utf16BigEndian), "t.csv") == expected)
        #expect(try table(marked([0xFF, 0xFE, 0, 0], .utf32LittleEndian), "t.csv") == expected)
        #expect(try table(marked([0xEF, 0xBB, 0xBF], .utf8), "t.csv") == expected)
        let chinese = try #require("第一行\n第二行\n".data(using: .utf16LittleEndian))
        #expect(try texts(Data([0xFF, 0xFE]) + chinese, "t.txt") == ["第一行", "第二行"])
        #expect(try texts(Data("one\rtwo\r\nthree\n\nfour".utf8), "t.txt") == ["one", "two", "three", "four"])
    }

    @Test(arguments: [
        (Data("a,b\n1,2\n".utf16.flatMap { [UInt8($0 & 0xFF), UInt8($0 >> 8)] }), "without a byte order mark"),
        (Data([0x50, 0x4B, 3, 4, 20, 0]), "a spreadsheet"), (Data([0x1F, 0x8B, 8]), "gzip"),
        (Data("%PDF-1.7".utf8), "PDF"),
        (Data(repeating: 0, count: 100), "NUL bytes"),
        (Data([0x7F, 0x45, 0x4C, 0x46, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]), "a program or a library, not text"),
    ])
    func whatIsNoTextIsNamed(data: Data, says: String) {
        let error = #expect(throws: LocalTrainingError.self) { try DataFile(data, name: "t.csv") }
        #expect(error?.ownerSentence.contains(says) == true)
    }

    @Test func jsonIsFoundByContentAndItsFaultsNamed() throws {
        let lines = Data("{\"text\": \"one\"}\r\n\n{\"text\": \"two\"}".utf8)
        for name in ["m.JSONL", "m.jsonl", "m.txt", "m", "m.csv"] { #expect(try texts(lines, name) == ["one", "two"]) }
        let array = Data("\u{FEFF} [ {\"text\": \"one\"},\n {\"text\": \"two\"} ] ".utf8)
        for name in ["m.json", "m.txt"] { #expect(try texts(array, name) == ["one", "two"]) }
        // What only begins like JSON is text.
        let laughs = Data("[laughs] hello\n{sighs}\n".utf8)
        #expect(try texts(laughs, "m.txt") == ["[laughs] hello", "{sighs}"])
        func problem(_ text: String, _ name: String) -> String {
            do { return "\(try texts(Data(text.utf8), name).count)" } catch let error as LocalTrainingError {
                return error.ownerSentence
            } catch { return "\(error)" }
        }
        #expect(problem("[laughs] hello", "m.json").contains("line 1, column 2"))
        #expect(problem("{\"text\": \"a\"}\n{\"text\": 4}", "m") == "line 2: no text in field 'text'")
        #expect(problem("{\"text\": \"a\"}\n{broken", "m").hasPrefix("line 2: not a JSON object"))
        #expect(problem("[{\"text\": \"a\"}, 3]", "m") == "record 2 is a number, not an object")
        #expect(problem("{\n\"text\":\n\"a\"}", "m.json") == "1")
    }

    /// Commas do not make a table of what people write.
    @Test(arguments: [
        "hello, you\nyes, me\nwell, 3 of us\n", "Dear Ann,\nI have 3, you 4.\nBye,\n", "7,8\n9,10\n11,12\n",
        "one line, only", "a,b\n", "Shopping: milk, eggs\n1,2\n3,4\n",
    ])
    func textStaysText(text: String) throws {
        guard case .texts(let texts) = try DataFile(Data(text.utf8), name: "t.txt").localData(field: nil) else {
            Issue.record("text became a table")
            return
        }
        #expect(texts.count == text.split(separator: "\n").count)
    }
}
