/// Rows as the model sees them: inputs with a value that is not 0, and a class.
struct TableExamples: Sendable {
    struct Row: Sendable {
        /// Inputs by number, without standardisation; a missing one is NaN.
        var inputs: [(index: Int, value: Double)]
        var target: Int
    }

    let schema: TableSchema
    private(set) var rows: [Row] = []
    /// Rows left out because a feature or the label is missing, or the label is no level.
    private(set) var droppedCount = 0

    /// - Throws: ``LocalTrainingError/unusableData(reason:)`` for a missing column, a cell that is no number or no level.
    init(table: Table, schema: TableSchema) throws {
        self.schema = schema
        let labelColumn: Int
        switch schema.label {
        case .binary(let column, _), .classes(let column, _): labelColumn = try table.position(of: column)
        }
        let columns = try schema.features.map { try table.position(of: $0.column) }
        for (number, cells) in table.rows.enumerated() {
            guard let target = try target(cells[labelColumn], row: number + 1),
                let inputs = try inputs(columns.map { cells[$0] }, row: number + 1)
            else {
                droppedCount += 1
                continue
            }
            rows.append(Row(inputs: inputs, target: target))
        }
    }

    private func target(_ cell: String, row: Int) throws -> Int? {
        if cell.isEmpty { return nil }
        switch schema.label {
        case .binary(let column, let comparison):
            guard let holds = comparison.holds(for: cell) else {
                throw LocalTrainingError.unusableData(reason: "row \(row), column '\(column)': '\(cell)' is no number")
            }
            return holds ? 1 : 0
        case .classes(let column, let levels):
            guard let index = levels.firstIndex(of: cell) else {
                throw LocalTrainingError.unusableData(reason: "row \(row), column '\(column)': '\(cell)' is no level")
            }
            return index
        }
    }

    /// `nil` when a feature is missing and such rows are dropped.
    private func inputs(_ cells: [String], row: Int) throws -> [(index: Int, value: Double)]? {
        var inputs: [(index: Int, value: Double)] = []
        var start = 0
        var indicator = schema.features.reduce(0) { $0 + $1.width }
        for (feature, cell) in zip(schema.features, cells) {
            if case .text(_, let buckets, let length) = feature {
                for (bucket, value) in Self.hashed(cell, buckets: buckets, length: length) {
                    inputs.append((start + bucket, value))
                }
                start += feature.width
                continue
            }
            if cell.isEmpty {
                if schema.missing == .drop { return nil }
                for offset in 0..<feature.width { inputs.append((start + offset, .nan)) }
                if schema.missing == .indicator { inputs.append((indicator, 1)) }
            } else {
                switch feature {
                case .number(let column, _, _):
                    guard let value = Double(cell), value.isFinite else {
                        throw LocalTrainingError.unusableData(
                            reason: "row \(row), column '\(column)': '\(cell)' is no number"
                        )
                    }
                    if value != 0 { inputs.append((start, value)) }
                case .category(let column, let levels, let dropsFirst):
                    guard let level = levels.firstIndex(of: cell) else {
                        throw LocalTrainingError.unusableData(
                            reason: "row \(row), column '\(column)': '\(cell)' is no level of the schema"
                        )
                    }
                    let position = level - (dropsFirst ? 1 : 0)
                    if position >= 0 { inputs.append((start + position, 1)) }
                case .text: break
                }
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

/// Mean and standard deviation of every input, for `x -> (x - mean) / (deviation + 1e-9)`.
public struct Standardization: Equatable, Sendable {
    /// `[width]`; 0 for inputs that are left alone.
    public var means: [Double]
    /// `[width]`; 1 for inputs that are left alone.
    public var deviations: [Double]

    /// Leaves everything alone.
    init(identity width: Int) {
        means = [Double](repeating: 0, count: width)
        deviations = [Double](repeating: 1, count: width)
    }

    /// From a device's own rows, the deviation with n - 1.
    init(rows: TableExamples) {
        let sums = TableSums(rows)
        self.init(sums: sums.values(rows.schema), schema: rows.schema)
    }

    /// From sums over rows by the layout of ``TabularStatistics``.
    init(sums: [(count: Double, sum: Double, square: Double)], schema: TableSchema) {
        self.init(identity: schema.width)
        let units = TableSums.units(schema)
        for (position, unit) in units.enumerated() {
            let (count, sum, square) = sums[position]
            guard count > 0 else { continue }
            let mean = sum / count
            // Where only shares were sent (a weighted mean of them), the count is 1 and n - 1 is taken for n.
            let divisor = count > 1.5 ? count - 1 : count
            let variance = max(0, (square - count * mean * mean) / divisor)
            means[unit.input] = unit.center + unit.scale * mean
            deviations[unit.input] = unit.scale * variance.squareRoot()
        }
    }
}

/// Counts, sums and sums of squares of the standardised inputs, in the units that the schema suggests.
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
        // A value that is not listed is 0, which is -center/scale in the column's unit.
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

    func values(_ schema: TableSchema) -> [(count: Double, sum: Double, square: Double)] {
        counts.indices.map { (counts[$0], sums[$0], squares[$0]) }
    }

    /// As the tensors `count`, `square`, `sum` of ``TabularStatistics``.
    var flat: [Float] { (counts + squares + sums).map { Float($0) } }
}
