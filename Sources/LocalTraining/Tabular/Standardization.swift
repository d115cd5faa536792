/// How a table's values become a model's inputs: `x -> (x - mean) / scale`, and a substitute for a missing value.
public struct Standardization: Equatable, Sendable {
    /// The means, shape `[width]`; 0 for inputs that are not standardised.
    public var means: [Double]
    /// The scales, shape `[width]`, never 0: the standard deviation, or the schema's `scale` for a column without variation.
    ///
    /// 1 for inputs that are not standardised.
    public var scales: [Double]
    /// The substitutes for missing values before standardisation, shape `[width]`.
    public var imputed: [Double]

    /// Changes no value.
    private init(identity width: Int) {
        means = [Double](repeating: 0, count: width)
        scales = [Double](repeating: 1, count: width)
        imputed = means
    }

    /// Changes no value; the mean of the device's column replaces a missing one.
    ///
    /// - Throws: `LocalTrainingError.unusableData(reason:rule:)` if a column has missing values only.
    init(unchanged examples: TableExamples) throws {
        self.init(identity: examples.schema.width)
        guard examples.schema.missing != .drop else { return }
        let columns = ColumnStatistics(examples)
        var start = 0
        for feature in examples.schema.features {
            defer { start += feature.width }
            if case .text = feature { continue }
            for input in start..<(start + feature.width) {
                if let mean = columns.mean(input) {
                    imputed[input] = mean
                } else if !examples.rows.isEmpty {
                    let rule =
                        "column '\(feature.column)' has no value, so there is no mean to replace missing ones"
                    throw LocalTrainingError.unsuitable(rule)
                }
            }
        }
    }

    /// Standardises by the device's own rows; the deviation divides by n - 1.
    init(rows examples: TableExamples) {
        self.init(identity: examples.schema.width)
        let columns = ColumnStatistics(examples)
        for unit in TableSums.units(examples.schema) {
            guard let mean = columns.mean(unit.input) else { continue }
            means[unit.input] = mean
            scales[unit.input] = columns.deviation(unit.input) ?? abs(unit.scale)
        }
        imputed = means
    }

    /// Standardises by sums over all clients' rows, in F32, in the layout of ``TabularStatistics``.
    init(sums: [(count: Double, sum: Double, square: Double)], schema: TableSchema) {
        self.init(identity: schema.width)
        for (position, unit) in TableSums.units(schema).enumerated() {
            let (count, sum, square) = sums[position]
            guard count > 0 else { continue }
            let mean = sum / count
            let spread = square - count * mean * mean
            // A weighted mean of shares has a count of 1; then the deviation divides by n.
            let divisor = count > 1.5 ? count - 1 : count
            means[unit.input] = unit.center + unit.scale * mean
            // Each F32 rounding of a sum is 2^-24 of it. A difference of nearly equal sums below a few of those is rounding and no
            // variation.
            let varies = spread > square * 0x1p-21
            scales[unit.input] = abs(unit.scale) * (varies ? (spread / divisor).squareRoot() : 1)
        }
        imputed = means
    }

    /// The model's input for a value; NaN is a missing value.
    func standardized(_ value: Double, input: Int) -> Double {
        ((value.isNaN ? imputed[input] : value) - means[input]) / scales[input]
    }
}

/// Mean and spread of each input over a device's rows, in two passes, so that a column with one value has a spread of exactly 0.
private struct ColumnStatistics {
    private var counts: [Double]
    private var means: [Double]
    private var squares: [Double]
    private var least: [Double]
    private var largest: [Double]

    init(_ examples: TableExamples) {
        let width = examples.schema.width
        let rowCount = Double(examples.rows.count)
        counts = [Double](repeating: rowCount, count: width)
        var listed = [Double](repeating: 0, count: width)
        means = listed
        squares = listed
        least = [Double](repeating: .infinity, count: width)
        largest = [Double](repeating: -.infinity, count: width)
        for row in examples.rows {
            for (index, value) in row.inputs {
                listed[index] += 1
                guard !value.isNaN else {
                    counts[index] -= 1
                    continue
                }
                means[index] += value
                least[index] = min(least[index], value)
                largest[index] = max(largest[index], value)
            }
        }
        for index in 0..<width {
            // Inputs that a row does not list are 0.
            if listed[index] < rowCount {
                least[index] = min(least[index], 0)
                largest[index] = max(largest[index], 0)
            }
            means[index] = least[index] == largest[index] ? least[index] : means[index] / max(1, counts[index])
            squares[index] = (rowCount - listed[index]) * means[index] * means[index]
        }
        for row in examples.rows {
            for (index, value) in row.inputs where !value.isNaN {
                squares[index] += (value - means[index]) * (value - means[index])
            }
        }
    }

    /// `nil` if no row has a value.
    func mean(_ input: Int) -> Double? { counts[input] > 0 ? means[input] : nil }

    /// `nil` if all values are equal.
    func deviation(_ input: Int) -> Double? {
        guard counts[input] > 1, least[input] < largest[input] else { return nil }
        return (squares[input] / (counts[input] - 1)).squareRoot()
    }
}
