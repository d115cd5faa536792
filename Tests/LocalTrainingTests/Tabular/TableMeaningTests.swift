import LocalTraining
import Tensors
import Testing

/// What a table's cells mean to a model: each fault that was found, with its right value.
struct TableMeaningTests {
    private static let instructions = TrainingInstructions(learningRate: 1, batchSize: 100, epochs: 1, seed: 0)

    private func trainer(
        _ csv: String,
        label: String = #"{"column": "y"}"#,
        features: String = #"{"column": "a"}"#,
        missing: String = "drop",
        standardization: String = "none"
    ) throws -> any ArchitectureTrainer {
        try ModelArchitectures.make(
            .init(
                architecture: "tabular",
                config: """
                    {"standardization": "\(standardization)", "schema": {"missing": "\(missing)", "label": \(label), \
                    "features": [\(features)]}}
                    """
            )
        ).makeTrainer(data: .table(Table(csv: csv)), instructions: Self.instructions)
    }

    /// What a step of rate 1 adds to a model of zeros: the weights, then the bias.
    private func gradient(
        _ trainer: any ArchitectureTrainer,
        width: Int,
        base: ParameterVector? = nil
    ) throws -> [Float] {
        var instructions = Self.instructions
        instructions.base = base
        let zeros = ParameterVector(zeros: TabularNetwork<Float>.layout([width, 1]))
        let delta = try trainer.gradient(model: zeros, instructions: instructions).delta
        return ["layers.0.weight", "layers.0.bias"].flatMap { delta[$0].map(Array.init) ?? [] }.map { -$0 }
    }

    /// What the owner reads, or how many rows are left and what is said of the others.
    private func outcome(_ make: () throws -> any ArchitectureTrainer) rethrows -> String {
        do {
            let trainer = try make()
            return (["\(trainer.exampleCount) rows"] + trainer.leftOut.examples).joined(separator: "; ")
        } catch let error as LocalTrainingError {
            return error.ownerSentence
        }
    }

    // MARK: - Labels

    @Test(
        arguments: ["> 0", "!= 0", "= 1", ">= 0.5", "<= 3"],
        ["NaN", "nan", "NA", "", " ", "null", "None", "?", "#N/A"]
    )
    func aMissingLabelIsNoClass(positive: String, mark: String) throws {
        for missing in ["drop", "mean", "indicator"] {
            let trainer = try trainer(
                "a,y\n1,\(mark)\n2,0\n3,1\n",
                label: #"{"column": "y", "positive": "\#(positive)"}"#,
                missing: missing
            )
            #expect(trainer.exampleCount == 2 && trainer.leftOut.missing == 1 && trainer.leftOut.unreadable == 0)
        }
    }

    @Test(arguments: ["> 0", "!= 0", "= 1"], ["True", "yes", "inf", "0x1", "1,5", "1\u{0}"])
    func textIsNoClassOfANumber(positive: String, cell: String) throws {
        let label = #"{"column": "y", "positive": "\#(positive)"}"#
        let csv = "a,y\n1,\"\(cell)\"\n2,0\n3,1\n"
        let trainer = try trainer(csv, label: label)
        #expect(trainer.exampleCount == 2 && trainer.leftOut.unreadable == 1)
        #expect(trainer.leftOut.examples.first?.hasPrefix("row 1, column 'y': ") == true)
        #expect(throws: LocalTrainingError.self) { try self.trainer(csv, label: label, missing: "mean") }
    }

    @Test func textIsComparedWithText() throws {
        let label = #"{"column": "y", "positive": "= yes"}"#
        let csv = "a,y\n1, yes \n1,no\n1,NA\n"
        let gradient = try gradient(trainer(csv, label: label), width: 1)
        // One of each: the bias of a balanced pair stays where it is.
        #expect(gradient == [0, 0])
        let absent = try trainer("a,y\n1,none\n2,some\n", label: #"{"column": "y", "positive": "!= none"}"#)
        #expect(absent.exampleCount == 2)
    }

    @Test func levelsOfALabelAreMatchedAsProgramsWriteThem() throws {
        let label = #"{"column": "y", "levels": ["0", "1", "2"]}"#
        #expect(try trainer("a,y\n1,1.0\n2, 2\n3,0\n", label: label).exampleCount == 3)
        #expect(
            try outcome { try trainer("a,y\n1,3\n2,01\n3,0\n", label: label) }
                == "1 rows; row 1, column 'y': the label is no level of the schema; "
                + "row 2, column 'y': the label is no level of the schema"
        )
    }

    // MARK: - Cells

    @Test(arguments: [
        ("233", 233), (" 233", 233), ("233 ", 233), ("\u{A0}233", 233), ("+5", 5), ("-.5", -0.5), ("5.", 5),
        ("1e3", 1000),
        ("1.5E-2", 0.015),
    ])
    func numbersAreDecimal(cell: String, value: Double) { #expect(TableCell.number(cell) == value) }

    @Test(arguments: [
        ("0x1A", "is no decimal number"), ("-0x1p4", "is no decimal number"), ("23\u{0}3", "a NUL character"),
        ("1,233", "thousands separators"), ("1_000", "thousands separators"), ("1 233", "thousands separators"),
        ("1\u{202F}233,5", "thousands separators"), ("1,5", "a decimal comma"), ("1e999", "too large"),
        ("inf", "is no decimal number"), ("Infinity", "is no decimal number"), ("١٢", "is no decimal number"),
        ("12 mg", "is no decimal number"), ("1e", "is no decimal number"), (".", "is no decimal number"),
    ])
    func nothingElseIsANumber(cell: String, says: String) {
        #expect(TableCell.number(cell) == nil)
        #expect(TableCell.numberFault(cell).contains(says))
    }

    @Test func badCellsAreNamedByRowAndColumnAndLeftOut() throws {
        let features = #"{"column": "a"}, {"column": "c", "type": "category", "levels": ["u", "v"]}"#
        func problem(_ csv: String, _ missing: String = "drop") throws -> String {
            try outcome { try trainer(csv, features: features, missing: missing) }
        }
        #expect(
            try problem("a,c,y\n1,u,0\nx,u,1\n\n2,w,1\n")
                == "1 rows; row 2, column 'a': the cell is no decimal number; "
                + "row 3, column 'c': the cell is no level of the schema"
        )
        #expect(
            try problem("a,c,y\n1,u,0\nx,u,1\n", "mean") == "row 2, column 'a': the cell is no decimal number"
        )
        #expect(
            try problem("a,c,y\nx,u,0\ny,u,1\n").hasSuffix("no decimal number, and 1 more rows like it; none is left")
        )
        #expect(
            try problem("a,c,y\n1,u\n1,u,0\n2,v,1,9\n")
                == "1 rows; row 1: it has 2 cells, the header 3; row 3: it has 4 cells, the header 3"
        )
        #expect(try problem("A,c,y\n1,u,0\n") == "the table has no column 'a', but one named 'A'")
        #expect(try problem("c,y\nu,0\n") == "the table has no column 'a'; it has c, y")
        #expect(try problem("a,c,y\n1,u,0\n,u,1\n2,v,\n3,v,1\n") == "2 rows")
        #expect(try problem(" a, c, y\n 1, u, 0\n 2, v, 1\n") == "2 rows")
    }

    /// Rows that a filter leaves keep their numbers in the file.
    @Test func rowsAreNumberedAsInTheFile() throws {
        let table = try Table(csv: "a,site,y\n1,p,0\n2,q,0\nx,q,1\n3,q,1\n").filtered(column: "site", equals: "q")
        let architecture = try ModelArchitectures.make(
            .init(
                architecture: "tabular",
                config: #"{"schema": {"label": {"column": "y"}, "features": [{"column": "a"}]}}"#
            )
        )
        let trainer = try architecture.makeTrainer(data: .table(table), instructions: Self.instructions)
        #expect(trainer.exampleCount == 2)
        #expect(trainer.leftOut.examples == ["row 3, column 'a': the cell is no decimal number"])
    }

    /// Every way in which a table can be wrong, and nothing of its cells or rows in what a server is told.
    @Test func whatAServerIsToldHoldsNothingOfTheTable() {
        let secret = "Jane Roe HIV positive"
        let features = #"{"column": "a"}, {"column": "c", "type": "category", "levels": ["u", "v"]}"#
        for csv in [
            "a,c,y\n\(secret),u,1\n", "a,c,y\n1,\(secret),1\n", "a,c,y\n1,u,\(secret)\n", "a,c\n1,\(secret)\n",
            "a,c,y\n\(secret)\n", "\(secret),\(secret)\n1,2\n", "a,\(secret)\n1,2\n", "a,c,y\n\"\(secret)",
        ] {
            for missing in ["drop", "mean"] {
                let error = #expect(throws: LocalTrainingError.self) {
                    try self.trainer(csv, features: features, missing: missing)
                }
                #expect(error?.serverDetail?.contains("Roe") == false, "\(csv)")
                #expect(
                    error?.ownerSentence.contains("HIV") == false || csv.hasPrefix("a,\(secret)")
                        || csv.hasPrefix("a,c\n")
                )
            }
        }
    }

    // MARK: - Missing features

    /// Values of `chol` without the first: their mean is 248.8, and the row of the missing one has label 1.
    private static let incomplete = "chol,y\n,1\n286,0\n250,1\n204,0\n236,1\n268,0\n"
    private static let mean = 248.8

    @Test func theColumnsMeanStandsInForAMissingValue() throws {
        let gradient = try gradient(
            trainer(Self.incomplete, features: #"{"column": "chol"}"#, missing: "mean"),
            width: 1
        )
        // Of the mean loss at zero weights: the mean of x (y - 1/2), with the mean in place of what is missing.
        let expected = (Self.mean * 0.5 - 286 * 0.5 + 250 * 0.5 - 204 * 0.5 + 236 * 0.5 - 268 * 0.5) / 6
        #expect(abs(Double(gradient[0]) - expected) < 1e-4)
        #expect(abs(expected - -1.93) < 0.01)
    }

    @Test func anIndicatorSaysSoBesideTheMean() throws {
        let gradient = try gradient(
            trainer(Self.incomplete, features: #"{"column": "chol"}"#, missing: "indicator"),
            width: 2
        )
        #expect(abs(gradient[0] - -1.9333) < 1e-3)
        #expect(abs(gradient[1] - 0.5 / 6) < 1e-6)
    }

    @Test func aLevelThatIsMissingIsTheSharesOfTheOthers() throws {
        let features = #"{"column": "c", "type": "category", "levels": ["u", "v"]}"#
        let gradient = try gradient(
            trainer("c,y\nu,0\nu,0\nv,0\nNA,1\n", features: features, missing: "mean"),
            width: 2
        )
        #expect(abs(gradient[0] - Float((2 / 3.0 - 2) * 0.5 / 4)) < 1e-6)
        #expect(abs(gradient[1] - Float((1 / 3.0 - 1) * 0.5 / 4)) < 1e-6)
    }

    @Test func aColumnWithoutValuesHasNoMean() throws {
        let trainer = try trainer("a,y\n,1\n,0\n", missing: "mean")
        let error = #expect(throws: LocalTrainingError.self) { try gradient(trainer, width: 1) }
        #expect(error?.ownerSentence.contains("column 'a' has no value") == true)
        // Centred, the mean is 0 whatever it is.
        #expect(
            try gradient(self.trainer("a,y\n,1\n,1\n", missing: "mean", standardization: "local"), width: 1) == [
                0, 0.5,
            ]
        )
    }

    // MARK: - Columns that do not vary

    @Test func aConstantColumnHasScaleOne() throws {
        // 0.1 is no binary fraction: a sum of squares less a squared sum would leave some rounding as variation.
        let csv = "a,b,y\n" + (0..<10).map { "0.1,\($0),\($0 % 2)\n" }.joined()
        let trainer = try trainer(
            csv,
            features: #"{"column": "a"}, {"column": "b"}"#,
            standardization: "local"
        )
        let gradient = try gradient(trainer, width: 2)
        #expect(gradient[0] == 0 && abs(gradient[1]) > 0.05)
    }

    /// Statistics of a site where two columns do not vary, used at a site where they do.
    @Test func aLevelThatNoSiteHadBeforeIsOrdinaryLater() throws {
        let schema = """
            {"label": {"column": "y"}, "features": [{"column": "age", "center": 50, "scale": 10}, {"column": "sex"}, \
            {"column": "cp", "type": "category", "levels": ["1", "2", "3"]}]}
            """
        let statistics = try ModelArchitectures.make(
            .init(architecture: "tabular-statistics", config: "{\"schema\": \(schema)}")
        )
        let siteA = try Table(csv: "age,sex,cp,y\n63,1,1,1\n67,1,2,1\n37,1,1,0\n41,1,2,0\n")
        let siteB = try Table(csv: "age,sex,cp,y\n50,0,3,1\n55,0,1,0\n60,1,3,1\n45,1,2,0\n")
        var base = statistics.initialParameters(seed: 0)
        let sums = try statistics.makeTrainer(data: .table(siteA), instructions: Self.instructions)
            .train(model: base, instructions: Self.instructions).delta
        base.values = sums.values
        let architecture = try ModelArchitectures.make(
            .init(architecture: "tabular", config: "{\"schema\": \(schema), \"standardization\": \"federated\"}")
        )
        let trainer = try architecture.makeTrainer(data: .table(siteB), instructions: Self.instructions)
        let gradient = try gradient(trainer, width: 5, base: base)
        // Inputs of sex are 0 - 1 or 1 - 1, those of cp = 3 are 0 or 1: means of x (y - 1/2).
        #expect(abs(gradient[1] - (-0.5 + 0.5) / 4) < 1e-6)
        #expect(abs(gradient[4] - (0.5 + 0.5) / 4) < 1e-6)
        #expect(gradient.allSatisfy { abs($0) < 2 } && abs(gradient[0]) > 1e-3)
    }

    /// What is left of two F32 sums of a constant is rounding, however the constant lies.
    @Test func roundingOfSumsIsNoVariation() throws {
        let schema = #"{"label": {"column": "y"}, "features": [{"column": "a"}]}"#
        let statistics = try ModelArchitectures.make(
            .init(architecture: "tabular-statistics", config: "{\"schema\": \(schema)}")
        )
        let architecture = try ModelArchitectures.make(
            .init(architecture: "tabular", config: "{\"schema\": \(schema), \"standardization\": \"federated\"}")
        )
        for constant in ["0.1", "-123.4", "98765.4321", "1e-7", "33333.3"] {
            let rows = (0..<997).map { "\(constant),\($0 % 2)\n" }.joined()
            var base = statistics.initialParameters(seed: 0)
            base.values = try statistics.makeTrainer(
                data: .table(Table(csv: "a,y\n" + rows)),
                instructions: Self.instructions
            )
            .train(model: base, instructions: Self.instructions).delta.values
            let other = try Table(csv: "a,y\n\((Double(constant) ?? 0) + 1),1\n")
            let trainer = try architecture.makeTrainer(data: .table(other), instructions: Self.instructions)
            let gradient = try gradient(trainer, width: 1, base: base)
            #expect(abs(gradient[0] - 0.5) < 0.01, "\(constant)")
        }
    }
}
