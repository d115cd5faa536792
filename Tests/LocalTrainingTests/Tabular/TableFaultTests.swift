import Foundation
import LocalTraining
import Tensors
import Testing

/// Tables that were given in once and silently made wrong models or refused devices, each with its right value.
///
/// The schema is theirs: `smoker > 0` from age, sex and chol as they stand, one step of rate 1 from zeros, as a device takes it.
struct TableFaultTests {
    /// What a table must come to.
    enum Right: Sendable {
        /// So many rows, and what a step adds to the weights of age, sex and chol, and to the bias.
        case step(rows: Int, [Double])
        /// What the owner reads.
        case says(String)
    }

    struct Fault: Sendable, CustomTestStringConvertible {
        var name: String
        var positive = "> 0"
        var missing = "mean"
        /// Rows under the header; the first of six, which the others follow.
        var first: String
        var header = "age,sex,chol,smoker"
        var right: Right
        var testDescription: String { "\(name), \(positive), \(missing)" }
    }

    private static let others = ["67,1,286,0", "37,0,250,1", "41,0,204,0", "56,1,236,1", "62,0,268,0"]

    /// The step by hand: the mean of x (y - 1/2), negated, over rows of (age, sex, chol, label).
    private static func step(_ rows: [(Double, Double, Double, Double)]) -> [Double] {
        let sums = rows.reduce([0.0, 0, 0, 0]) { sums, row in
            let error = row.3 - 0.5
            return [
                sums[0] + row.0 * error, sums[1] + row.1 * error, sums[2] + row.2 * error, sums[3] + error,
            ]
        }
        return sums.map { $0 / Double(rows.count) }
    }

    private static let rows: [(Double, Double, Double, Double)] = [
        (67, 1, 286, 0), (37, 0, 250, 1), (41, 0, 204, 0), (56, 1, 236, 1), (62, 0, 268, 0),
    ]
    private static let whole = Right.step(rows: 6, step([(63, 1, 233, 1)] + rows))
    private static let without = Right.step(rows: 5, step(rows))

    static let faults: [Fault] = [
        .init(name: "F3 a label NaN is no class", first: "63,1,233,NaN", right: without),
        .init(name: "F3 a label nan is no class", positive: "!= 0", first: "63,1,233,nan", right: without),
        .init(name: "F3 a label NA is no class", positive: "= 1", first: "63,1,233,NA", right: without),
        .init(
            name: "F3 True is no number",
            positive: "!= 0",
            first: "63,1,233,True",
            right: .says("row 1, column 'smoker'")
        ),
        .init(name: "F3 True is left out", missing: "drop", first: "63,1,233,True", right: without),
        .init(
            name: "F4 the mean of the others, and not 0",
            first: "63,1,,1",
            right: .step(rows: 6, step([(63, 1, 248.8, 1)] + rows))
        ),
        .init(name: "F4 a missing value is left out", missing: "drop", first: "63,1,,1", right: without),
        .init(
            name: "F4 NaN is missing too",
            first: "63,1,NaN,1",
            right: .step(rows: 6, step([(63, 1, 248.8, 1)] + rows))
        ),
        .init(name: "F21 a hexadecimal number", first: "63,1,0x1A,1", right: .says("row 1, column 'chol'")),
        .init(name: "F21 and its row is left out", missing: "drop", first: "63,1,0x1A,1", right: without),
        .init(name: "F21 a NUL in a cell", first: "63,1,23\u{0}3,1", right: .says("a NUL character")),
        .init(name: "F21 blanks after commas", first: "63, 1, 233, 1", right: whole),
        .init(name: "F21 thousands", first: #"63,1,"1,233",1"#, right: .says("thousands separators")),
        .init(name: "F21 thousands, left out", missing: "drop", first: #"63,1,"1,233",1"#, right: without),
        .init(name: "F21 an integer written as 1.0", first: "63,1.0,233,1.0", right: whole),
        .init(
            name: "F1 a cell with somebody's name",
            first: "63,1,\"Jane Roe, HIV\",1",
            right: .says("row 1, column 'chol'")
        ),
        .init(
            name: "F2 a name in capitals",
            first: "63,1,233,1",
            header: "Age,sex,chol,smoker",
            right: .says("named 'Age'")
        ),
    ]

    private func trainer(_ fault: Fault) throws -> any ArchitectureTrainer {
        let csv = ([fault.header, fault.first] + Self.others).joined(separator: "\n") + "\n"
        let config = """
            {"schema": {"label": {"column": "smoker", "positive": "\(fault.positive)"}, "missing": "\(fault.missing)", \
            "features": [{"column": "age", "center": 50, "scale": 10}, {"column": "sex"}, \
            {"column": "chol", "center": 200, "scale": 100}]}}
            """
        guard case .table(let table) = try DataFile(Data(csv.utf8), name: "t.csv").localData(field: nil) else {
            throw LocalTrainingError.noData
        }
        return try ModelArchitectures.make(.init(architecture: "tabular", config: config))
            .makeTrainer(data: .table(table), instructions: Self.instructions)
    }

    private static let instructions = TrainingInstructions(learningRate: 1, batchSize: 100, epochs: 1, seed: 0)

    @Test(arguments: faults)
    func eachHasItsRightValue(_ fault: Fault) throws {
        let zeros = ParameterVector(zeros: TabularNetwork<Float>.layout([3, 1]))
        switch fault.right {
        case .says(let words):
            let error = #expect(throws: LocalTrainingError.self) {
                _ = try trainer(fault).gradient(model: zeros, instructions: Self.instructions)
            }
            #expect(error?.ownerSentence.contains(words) == true, "\(error?.ownerSentence ?? "")")
            #expect(error?.ownerSentence.contains("Roe") == false && error?.serverDetail?.contains("row") != true)
        case .step(let rows, let expected):
            let trainer = try trainer(fault)
            let delta = try trainer.gradient(model: zeros, instructions: Self.instructions).delta
            let tensors: [[Float]] = ["layers.0.weight", "layers.0.bias"].map { delta[$0].map(Array.init) ?? [] }
            let found: [Double] = tensors.flatMap { $0 }.map { -Double($0) }
            #expect(trainer.exampleCount == rows)
            for (value, right) in zip(found, expected) {
                #expect(abs(value - right) < 1e-4, "\(found) for \(expected)")
            }
        }
    }

    /// F16: what is a table by its contents, in every form in which it was not read.
    @Test func everyFormOfTheFileIsTheSameTable() throws {
        let lines = ["age,sex,chol,smoker", "63,1,233,1"] + Self.others
        func table(
            _ text: String,
            _ name: String = "table.CSV",
            _ mark: [UInt8] = [],
            _ encoding: String.Encoding = .utf8
        ) throws
            -> Table?
        {
            let data = Data(mark) + (try #require(text.data(using: encoding)))
            guard case .table(let table) = try DataFile(data, name: name).localData(field: nil) else { return nil }
            return table
        }
        let right = try #require(try table(lines.joined(separator: "\n")))
        #expect(right.rows.count == 6)
        for separator in [";", "\t", "|"] {
            let text = lines.joined(separator: "\n").replacing(",", with: separator)
            #expect(try table(text)?.rows == right.rows, "\(separator)")
        }
        for end in ["\r", "\r\n"] { #expect(try table(lines.joined(separator: end))?.rows == right.rows) }
        let text = lines.joined(separator: "\r\n")
        #expect(try table(text, "t.csv", [0xFF, 0xFE], .utf16LittleEndian)?.rows == right.rows)
        #expect(try table(text, "t.csv", [0xFE, 0xFF], .utf16BigEndian)?.rows == right.rows)
    }
}
