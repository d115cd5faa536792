import Foundation
import LocalTraining
import Tensors
import Testing

/// One bad record, line or cell costs a device that record, and not all of its data.
struct OneBadRecordTests {
    private static let schema = """
        {"schema": {"label": {"column": "y"}, "missing": "MISSING", "features": [{"column": "a"}]}}
        """
    private static let instructions = TrainingInstructions(learningRate: 1, batchSize: 100, epochs: 1, seed: 0)

    private func rows(_ text: String, _ name: String, missing: String = "drop", config: String? = nil) throws -> Int {
        guard case .table(let table) = try DataFile(Data(text.utf8), name: name).localData(field: nil) else {
            return -1
        }
        return try ModelArchitectures.make(
            .init(
                architecture: "tabular",
                config: config ?? Self.schema.replacing("MISSING", with: missing)
            )
        ).makeTrainer(data: .table(table), instructions: Self.instructions).exampleCount
    }

    private func refusal(
        _ text: String,
        _ name: String,
        missing: String = "mean",
        config: String? = nil
    ) -> LocalTrainingError? {
        do {
            _ = try rows(text, name, missing: missing, config: config)
            return nil
        } catch { return error as? LocalTrainingError }
    }

    /// A nested field of a column that the schema does not name refused the whole device.
    @Test(arguments: ["t.jsonl", "t.json"])
    func aNestedFieldCountsWhereItsColumnIsUsed(_ name: String) throws {
        func text(_ records: [String]) -> String {
            name.hasSuffix("l") ? records.joined(separator: "\n") : "[" + records.joined(separator: ",") + "]"
        }
        let good = [#"{"a": 1, "y": 1}"#, #"{"a": 2, "y": 0}"#]
        let elsewhere = text(good + [#"{"a": 3, "y": 1, "meta": {"b": [1]}}"#])
        #expect(try rows(elsewhere, name, missing: "mean") == 3)
        let used = text(good + [#"{"a": [3], "y": 1}"#])
        #expect(try rows(used, name) == 2)
        let said = refusal(used, name)
        #expect(said?.ownerSentence == "row 3, column 'a': the field is no single value")
        #expect(said?.serverDetail == "column 'a': the field is no single value")
    }

    @Test func aBrokenLineIsARowThatCannotBeRead() throws {
        let text = "{\"a\": 1, \"y\": 1}\n{\"a\": 2, \"y\"\n3\n{\"a\": 2, \"y\": 0}\n"
        for name in ["t.jsonl", "t.txt"] {
            #expect(try rows(text, name) == 2)
            #expect(refusal(text, name)?.ownerSentence == "row 2: it is not a JSON object")
        }
        // Texts have no rule that leaves records out: it is named.
        let texts = "{\"text\": \"a\"}\n{\"text\"\n"
        #expect(throws: LocalTrainingError.self) { try DataFile(Data(texts.utf8), name: "t").texts(field: "text") }
        // A file of nothing else is none.
        let none = #expect(throws: LocalTrainingError.self) { try DataFile(Data("{\n{".utf8), name: "t.jsonl") }
        #expect(none?.ownerSentence.hasPrefix("line 1: not a JSON object") == true)
    }

    @Test func aQuoteThatNeverEndsCostsItsLine() throws {
        let text = "a,y\n1,1\n\"2,0\n3,0\n4,1\n"
        #expect(try rows(text, "t.csv") == 3)
        #expect(refusal(text, "t.csv")?.ownerSentence == "row 2: it has a quote that never ends")
        // At the end of the file, and in its header.
        #expect(try rows("a,y\n1,1\n2,\"0", "t.csv") == 1)
        #expect(refusal("\"a,y\n1,1\n", "t.csv")?.ownerSentence.contains("never ends") == true)
        // Very many are another kind of file.
        let many = "a,y\n" + String(repeating: "1,1\n\"2,0\n", count: 150) + "x\"\n"
        #expect(refusal(many + "\"", "t.csv") != nil)
    }

    // MARK: - Levels

    private func label(_ positive: String) -> String {
        #"{"schema": {"label": {"column": "y", "positive": "\#(positive)"}, "features": [{"column": "a"}]}}"#
    }

    /// `None` as the other class was taken for missing, and all that was left was one class.
    @Test(arguments: ["None", "-", "."])
    func aLevelThatLooksMissingIsNamed(_ level: String) throws {
        let text = "a,y\n1,yes\n2,\(level)\n3,yes\n4,\(level)\n"
        let said = refusal(text, "t.csv", config: label("= yes"))
        #expect(said?.ownerSentence.contains("column 'y': all labels are of one class") == true)
        #expect(said?.ownerSentence.contains("(2)") == true && said?.serverDetail?.contains("2") == false)
        // With both classes a missing label is one; as the positive level it is a level.
        #expect(try rows(text + "5,no\n", "t.csv", config: label("= yes")) == 3)
        #expect(try rows("a,y\n1,yes\n2,\(level)\n", "t.csv", config: label("= \(level)")) == 2)
        // A device that has one class only, and labels that are not there, is no error.
        #expect(try rows("a,y\n1,yes\n2,\n3,yes\n", "t.csv", config: label("= yes")) == 2)
    }

    /// A level is the one that is written like the cell, before one that is the same number.
    @Test func levelsAreExactFirst() {
        #expect(TableCell.index(of: "1.0", in: ["1", "1.0"]) == 1 && TableCell.index(of: "1", in: ["1", "1.0"]) == 0)
        #expect(TableCell.index(of: " 1.0 ", in: ["1", "1.0"]) == 1)
        #expect(TableCell.index(of: "1.0", in: ["0", "1"]) == 1 && TableCell.index(of: "2", in: ["0", "1"]) == nil)
    }
}
