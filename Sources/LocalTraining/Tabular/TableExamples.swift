/// Rows as the model sees them: the inputs that are not 0, and a class.
struct TableExamples: Sendable {
    struct Row: Sendable {
        /// Inputs by index, not standardised; a missing one is NaN.
        var inputs: [(index: Int, value: Double)]
        var target: Int
    }

    let schema: TableSchema
    private(set) var rows: [Row] = []
    /// Rows that were left out, and why.
    private(set) var leftOut = LeftOutRows()

    /// Reads the columns that the schema names.
    ///
    /// A row without a label is left out. A cell is unreadable if it is no number, no level, or cannot be compared as the label's
    /// comparison asks. With `missing: drop` in the schema its row is left out; otherwise it is an error. No unreadable cell ever counts as
    /// a class.
    ///
    /// - Throws: `LocalTrainingError.unusableData(reason:rule:)` for a missing column, for such a cell, or if all rows are
    ///   unreadable.
    init(table: Table, schema: TableSchema) throws {
        self.schema = schema
        let labelColumn: Int
        switch schema.label {
        case .binary(let column, _), .classes(let column, _): labelColumn = try table.position(of: column)
        }
        let columns = try schema.features.map { try table.position(of: $0.column) }
        var first: TableFault?
        func leaveOut(_ fault: TableFault) throws {
            guard schema.missing == .drop else { throw fault.error }
            first = first ?? fault
            leftOut.add(fault)
        }
        for fault in table.faults { try leaveOut(fault) }
        let used = [labelColumn] + columns
        var markedLabels = 0
        for (index, cells) in table.rows.enumerated() {
            let number = table.rowNumber(index)
            do throws(TableFault) {
                if let faults = table.cellFaults[number], let place = used.first(where: { faults[$0] != nil }) {
                    throw TableFault(row: number, column: table.header[place], rule: faults[place] ?? "")
                }
                if isMark(cells[labelColumn]) { markedLabels += 1 }
                guard let target = try target(cells[labelColumn], row: number),
                    let inputs = try inputs(columns.map { cells[$0] }, row: number)
                else {
                    leftOut.missing += 1
                    continue
                }
                rows.append(Row(inputs: inputs, target: target))
            } catch {
                try leaveOut(error)
            }
        }
        try requireClasses(markedLabels)
        guard rows.isEmpty, let first else { return }
        let others = leftOut.unreadable - 1
        throw LocalTrainingError.unusableData(
            reason: first.ownerSentence
                + (others > 0 ? ", and \(others) more rows like it; none is left" : "; no row is left"),
            rule: first.serverDetail + "; no row is left"
        )
    }

    /// Whether a label is a word for a missing value that could also be a level, such as `None` or `-`.
    private func isMark(_ cell: String) -> Bool {
        guard case .binary(_, let comparison) = schema.label, TableCell.number(comparison.value) == nil else {
            return false
        }
        return !cell.isEmpty && comparison.holds(for: cell) == nil && !TableCell.trimmed(cell).isEmpty
    }

    /// Refuses data with labels of one class only, if the other class may have been read as missing values.
    private func requireClasses(_ markedLabels: Int) throws {
        guard markedLabels > 0, let target = rows.first?.target, rows.allSatisfy({ $0.target == target }),
            case .binary(let column, _) = schema.label
        else { return }
        let rule = "all labels are of one class, and rows were left out whose label stands for a missing value"
        throw LocalTrainingError.unusableData(
            reason:
                "column '\(column)': \(rule) (\(markedLabels)), such as None, - or NA; if that is a level of its own, write "
                + "another word for it, or name the levels in the run's schema",
            rule: "column '\(column)': \(rule)"
        )
    }

    /// The class of a label; `nil` for a missing label.
    private func target(_ cell: String, row: Int) throws(TableFault) -> Int? {
        switch schema.label {
        case .binary(let column, let comparison):
            if let holds = comparison.holds(for: cell) { return holds ? 1 : 0 }
            if TableCell.isMissing(cell) { return nil }
            throw TableFault(
                row: row,
                column: column,
                rule: TableCell.numberFault(cell) + ", and the label is compared with a number"
            )
        case .classes(let column, let levels):
            if let index = TableCell.index(of: cell, in: levels) { return index }
            if TableCell.isMissing(cell) { return nil }
            throw TableFault(row: row, column: column, rule: "the label is no level of the schema")
        }
    }

    /// The inputs of a row; `nil` if a feature is missing and such rows are dropped.
    private func inputs(_ cells: [String], row: Int) throws(TableFault) -> [(index: Int, value: Double)]? {
        var inputs: [(index: Int, value: Double)] = []
        var start = 0
        var indicator = schema.features.reduce(0) { $0 + $1.width }
        for (feature, cell) in zip(schema.features, cells) {
            let isKnown: Bool
            switch feature {
            case .text(_, let buckets, let length):
                for (bucket, value) in Self.hashed(cell, buckets: buckets, length: length) {
                    inputs.append((start + bucket, value))
                }
                start += feature.width
                continue
            case .number(let column, _, _):
                let value = TableCell.number(cell)
                isKnown = value != nil
                guard isKnown || TableCell.isMissing(cell) else {
                    throw TableFault(row: row, column: column, rule: TableCell.numberFault(cell))
                }
                if let value, value != 0 { inputs.append((start, value)) }
            case .category(let column, let levels, let dropsFirst):
                let level = TableCell.index(of: cell, in: levels)
                isKnown = level != nil
                guard isKnown || TableCell.isMissing(cell) else {
                    throw TableFault(row: row, column: column, rule: "the cell is no level of the schema")
                }
                let position = (level ?? 0) - (dropsFirst ? 1 : 0)
                if level != nil, position >= 0 { inputs.append((start + position, 1)) }
            }
            if !isKnown {
                if schema.missing == .drop { return nil }
                for offset in 0..<feature.width { inputs.append((start + offset, .nan)) }
                if schema.missing == .indicator { inputs.append((indicator, 1)) }
            }
            start += feature.width
            indicator += 1
        }
        return inputs
    }

    /// Word n-grams by FNV-1a, the sign from the hash's top bit, scaled to length 1.
    static func hashed(_ text: String, buckets: Int, length: Int) -> [(Int, Double)] {
        let words = WordTokenizer.tokens(of: text)
        var counts: [Int: Double] = [:]
        for size in 1...length where size <= words.count {
            for start in 0...(words.count - size) {
                var hash: UInt64 = 0xCBF2_9CE4_8422_2325
                for word in words[start..<(start + size)] {
                    for byte in word.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
                    hash = (hash ^ 0xFF) &* 0x100_0000_01B3
                }
                counts[Int(hash % UInt64(buckets)), default: 0] += hash >> 63 == 1 ? 1 : -1
            }
        }
        let norm = counts.values.reduce(0) { $0 + $1 * $1 }.squareRoot()
        return norm > 0 ? counts.filter { $0.value != 0 }.map { ($0.key, $0.value / norm) }.sorted { $0.0 < $1.0 } : []
    }
}

/// Counts, sums and sums of squares of the inputs that are standardised, in the units of the schema's `center` and `scale`.
struct TableSums {
    private var counts: [Double]
    private var sums: [Double]
    private var squares: [Double]

    struct Unit {
        var input: Int
        var center: Double
        var scale: Double
    }

    /// The standardised inputs in order.
    static func units(_ schema: TableSchema) -> [Unit] {
        var units: [Unit] = []
        var start = 0
        for feature in schema.features {
            switch feature {
            case .number(_, let center, let scale): units.append(Unit(input: start, center: center, scale: scale))
            case .category: units += (0..<feature.width).map { Unit(input: start + $0, center: 0, scale: 1) }
            case .text: break
            }
            start += feature.width
        }
        return units
    }

    init(_ examples: TableExamples) {
        let units = Self.units(examples.schema)
        let rowCount = Double(examples.rows.count)
        counts = units.map { _ in rowCount }
        // A value that a row does not list is 0, which is -center/scale in the column's unit.
        sums = units.map { rowCount * (-$0.center / $0.scale) }
        squares = units.map { rowCount * ($0.center / $0.scale) * ($0.center / $0.scale) }
        let positions = Dictionary(uniqueKeysWithValues: units.enumerated().map { ($1.input, $0) })
        for row in examples.rows {
            for (index, value) in row.inputs {
                guard let position = positions[index] else { continue }
                let unit = units[position]
                let zero = -unit.center / unit.scale
                sums[position] -= zero
                squares[position] -= zero * zero
                if value.isNaN {
                    counts[position] -= 1
                } else {
                    let scaled = (value - unit.center) / unit.scale
                    sums[position] += scaled
                    squares[position] += scaled * scaled
                }
            }
        }
    }

    /// As the tensors `count`, `square`, `sum` of ``TabularStatistics``.
    var flat: [Float] { (counts + squares + sums).map { Float($0) } }
}
