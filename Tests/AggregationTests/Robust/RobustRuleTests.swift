import Aggregation
import Foundation
import Tensors
import Testing

struct RobustRuleTests {
    private struct Fixture: Decodable {
        struct Parameters: Decodable {
            var updates: [[Float]]
            var weights: [Int]
            var trimCount: Int
            var maliciousCount: Int
        }
        var parameters: Parameters
        var median: [Double]
        var trimmedMean: [Double]
        var krum: [Int]
        var multiKrum: [Int]
        var geometricMedian: [Double]
        var norms: [Double]

        static func load() throws -> Fixture {
            let url = try #require(Bundle.module.url(forResource: "Fixtures/robust-rules", withExtension: "json"))
            let decoder = JSONDecoder()
            decoder.keyDecodingStrategy = .convertFromSnakeCase
            return try decoder.decode(Fixture.self, from: Data(contentsOf: url))
        }
    }

    /// Files of updates whose contents name themselves, as the coordinator's do by their SHA-256.
    @discardableResult
    private func withColumns<Result>(
        _ rows: [[Float]],
        weights: [Int]? = nil,
        order: [Int]? = nil,
        kind: UpdateColumns.Kind = .delta,
        valueBound: Double = 1e6,
        _ body: (UpdateColumns) throws -> Result
    ) throws -> Result {
        let directory = NSTemporaryDirectory() + "robust-\(UUID().uuidString)/"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let layout = ParameterLayout([.init(name: "w", shape: [rows[0].count])])
        var updates: [SpooledUpdate] = []
        for (place, index) in (order ?? Array(rows.indices)).enumerated() {
            let path = directory + "\(place)"
            let data = SafetensorsWriter.encode(ParameterVector(layout: layout, values: rows[index]))
            try data.write(to: URL(fileURLWithPath: path))
            let content = data.reduce(into: UInt64(14_695_981_039_346_656_037)) {
                $0 = ($0 ^ UInt64($1)) &* 1_099_511_628_211
            }
            updates.append(SpooledUpdate(path: path, weight: weights?[index] ?? 1, contentID: String(content)))
        }
        return try body(UpdateColumns(of: updates, layout: layout, kind: kind, valueBound: valueBound))
    }

    private func near(_ left: [Double], _ right: [Double], _ tolerance: Double) -> Bool {
        left.count == right.count && zip(left, right).allSatisfy { abs($0 - $1) <= tolerance }
    }

    @Test func rulesAgreeWithTheReference() throws {
        let fixture = try Fixture.load()
        let rows = fixture.parameters.updates
        try withColumns(rows, weights: fixture.parameters.weights) { columns in
            #expect(try near(CoordinateMedian.aggregate(columns), fixture.median, 1e-12))
            #expect(
                try near(
                    TrimmedMean.aggregate(columns, trimCount: fixture.parameters.trimCount),
                    fixture.trimmedMean,
                    1e-12
                )
            )
            // Weiszfeld ends when a step gains less than 1e-9 of the objective; the point is then within 1e-3 here.
            let median = try GeometricMedian.aggregate(
                columns,
                weights: columns.updates.map(\.weight),
                iterationLimit: 1000,
                tolerance: 1e-15
            )
            #expect(near(median, fixture.geometricMedian, 1e-5))
            for (selected, expected) in [(1, fixture.krum), (5, fixture.multiKrum)] {
                let mean = (0..<rows[0].count).map { column in
                    expected.reduce(0.0) { $0 + Double(rows[$1][column]) } / Double(expected.count)
                }
                let krum = try Krum.aggregate(
                    columns,
                    maliciousCount: fixture.parameters.maliciousCount,
                    selectedCount: selected
                )
                #expect(near(krum, mean, 1e-8))
            }
            let norms = try columns.norms().sorted()
            #expect(near(norms, fixture.norms.sorted(), 1e-5))
        }
    }

    @Test func everyRuleIsTheSameToTheBitInAnyOrder() throws {
        // 9,000 columns are three blocks; rows 3 and 4 are equal, so Krum's scores tie.
        var generator = Xoshiro256StarStar(seed: 11)
        var rows = (0..<9).map { _ in (0..<9000).map { _ in 2 * generator.nextUniform() - 1 } }
        rows[4] = rows[3]
        let weights = [3, 1, 4, 1, 1, 9, 2, 6, 5]
        var results: Set<[Double]> = []
        var order = Array(rows.indices)
        for _ in 0..<4 {
            let result = try withColumns(rows, weights: weights, order: order) { columns in
                let shares = columns.updates.map(\.weight)
                var all = try CoordinateMedian.aggregate(columns)
                all += try TrimmedMean.aggregate(columns, trimCount: 2)
                all += try Krum.aggregate(columns, maliciousCount: 2, selectedCount: 1)
                all += try Krum.aggregate(columns, maliciousCount: 2, selectedCount: 4)
                all += try GeometricMedian.aggregate(columns, weights: shares)
                let bounded = columns.scaled(by: NormBounding.factors(norms: try columns.norms(), bound: 54))
                return all + (try bounded.mean(weights: shares))
            }
            results.insert(result)
            generator.shuffle(&order)
        }
        #expect(results.count == 1)
    }

    @Test func twoPoisonedOfTenDoNotMoveTheRulesButMoveTheMean() throws {
        var generator = Xoshiro256StarStar(seed: 5)
        let honest = (0..<8).map { _ in (0..<50).map { _ in 1 + 0.1 * (2 * generator.nextUniform() - 1) } }
        let rows: [[Float]] = honest + [[Float](repeating: -100, count: 50), [Float](repeating: -100, count: 50)]
        try withColumns(rows) { columns in
            let plain = try columns.mean(weights: Array(repeating: 1, count: 10))
            #expect(plain.allSatisfy { $0 < -15 })
            let ones = [Double](repeating: 1, count: 50)
            #expect(try near(CoordinateMedian.aggregate(columns), ones, 0.1))
            #expect(try near(TrimmedMean.aggregate(columns, trimCount: 2), ones, 0.1))
            #expect(try near(Krum.aggregate(columns, maliciousCount: 2, selectedCount: 1), ones, 0.1))
            #expect(try near(Krum.aggregate(columns, maliciousCount: 2, selectedCount: 6), ones, 0.1))
            #expect(try near(GeometricMedian.aggregate(columns, weights: Array(repeating: 1, count: 10)), ones, 0.2))
            let norms = try columns.norms()
            let scores = try AnomalyScores.scores(columns, norms: norms, aggregate: ones)
            #expect(scores.count { $0.normRatio > 10 } == 2 && scores.count { ($0.cosine ?? 0) < -0.99 } == 2)
            let bounded = try columns.scaled(by: NormBounding.factors(norms: norms, bound: 7)).mean(
                weights: Array(repeating: 1, count: 10)
            )
            // Eight of about 1 and two of −7/√50.
            #expect(bounded.allSatisfy { abs($0 - (8 - 2 * 0.99) / 10) < 0.1 })
        }
    }

    @Test func weightsAndGradientsBecomeDeltas() throws {
        let base: [Float] = [1, 2, 3]
        let rows: [[Float]] = [[2, 2, 3], [4, 2, 1]]
        try withColumns(rows, kind: .weights(base: base)) { columns in
            let mean = try columns.mean(weights: [1, 1])
            #expect(mean == [2, 0, -1])
        }
        try withColumns(rows, kind: .gradient) { columns in
            let mean = try columns.mean(weights: [1, 1])
            #expect(mean == [-3, -2, -2])
        }
    }

    @Test func tooFewUpdatesAndWildValuesAreRefused() throws {
        let rows: [[Float]] = [[1], [2], [3], [4]]
        try withColumns(rows) { columns in
            #expect(throws: AggregationError.tooFewUpdates(minimum: 5, actual: 4)) {
                try TrimmedMean.aggregate(columns, trimCount: 2)
            }
            #expect(throws: AggregationError.tooFewUpdates(minimum: 5, actual: 4)) {
                try Krum.aggregate(columns, maliciousCount: 1, selectedCount: 1)
            }
        }
        try withColumns([[1], [.nan]]) { columns in
            #expect(throws: AggregationError.self) { try CoordinateMedian.aggregate(columns) }
        }
        try withColumns(rows, valueBound: 3) { columns in
            #expect(throws: AggregationError.valueOutOfRange(index: 0, bound: 3)) { try columns.norms() }
        }
    }

    @Test(arguments: [1, 2, 3, 5, 6, 7, 16, 33])
    func theSortingNetworkSortsEveryNumberOfRows(count: Int) throws {
        var generator = Xoshiro256StarStar(seed: UInt64(count))
        let rows = (0..<count).map { _ in (0..<300).map { _ in Float(generator.nextIndex(below: 9)) } }
        try withColumns(rows) { columns in
            let median = try CoordinateMedian.aggregate(columns)
            for column in 0..<300 {
                let sorted = rows.map { Double($0[column]) }.sorted()
                let expected = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2
                #expect(median[column] == expected)
            }
        }
    }
}
