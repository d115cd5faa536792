import Aggregation
import Foundation
import Tensors
import Testing
import UpdateCompression

/// What keeps one client from being the model: wide weights that are summed exactly, and updates that are scaled down.
struct HeldClientTests {
    private static let layout = ParameterLayout([
        .init(name: "a", shape: [73, 11]), .init(name: "b", shape: [1500]), .init(name: "c", shape: []),
    ])

    /// Two updates of each encoding, with weights up to a limit and factors.
    private func withUpdates(
        magnitude: Float,
        weightLimit: Int,
        factors: Bool,
        _ body: ([SpooledUpdate]) throws -> Void
    ) throws {
        let directory = NSTemporaryDirectory() + "held-\(UUID().uuidString)/"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        var generator = Xoshiro256StarStar(seed: 21)
        var updates: [SpooledUpdate] = []
        for (index, encoding) in (UpdateEncoding.allCases + UpdateEncoding.allCases).enumerated() {
            let values = (0..<Self.layout.parameterCount).map { _ in magnitude * (2 * generator.nextUniform() - 1) }
            var residual: [Float] = []
            let data = UpdateEncoder.encode(
                ParameterVector(layout: Self.layout, values: values),
                as: encoding,
                metadata: [:],
                seed: generator.next(),
                residual: &residual
            )
            try data.write(to: URL(fileURLWithPath: directory + "\(index)"))
            let weight = index == 3 ? weightLimit : 1 + generator.nextIndex(below: weightLimit)
            let factor = factors && index % 3 == 0 ? Double(generator.nextUniform()) : 1
            updates.append(SpooledUpdate(path: directory + "\(index)", weight: weight, factor: factor))
        }
        try body(updates)
    }

    private func decoded(_ update: SpooledUpdate) throws -> [Float] {
        var values = [Float](repeating: 0, count: Self.layout.parameterCount)
        try UpdateFile(path: update.path, layout: Self.layout).read(0..<values.count, into: &values)
        return values
    }

    /// The first case stays in 64 bits, the others do not.
    @Test(arguments: [(2, 1 << 16, 64), (2, 1 << 40, 64), (9000, 1 << 40, 1_000_000)] as [(Float, Int, Double)])
    func heldUpdatesOfAnyWeightFoldToWhatPlainArithmeticGives(
        _ magnitude: Float,
        _ weightLimit: Int,
        _ bound: Double
    ) throws {
        try withUpdates(magnitude: magnitude, weightLimit: weightLimit, factors: true) { updates in
            var expected = [Int128](repeating: 0, count: Self.layout.parameterCount)
            for update in updates {
                for (index, value) in try decoded(update).enumerated() {
                    let held = update.factor == 1 ? value : Float(Double(value) * update.factor)
                    let rounded = (Double(held) * 0x1p30).rounded(.toNearestOrEven)
                    expected[index] += Int128(Int64(rounded)) * Int128(update.weight)
                }
            }
            let total = Double(updates.reduce(Int128(0)) { $0 + Int128($1.weight) })
            let wanted = expected.map { Double($0) * 0x1p-30 / total }
            var generator = Xoshiro256StarStar(seed: 5)
            for block in [FixedPointMean.defaultBlockElementCount, 100, 1777] {
                var shuffled = updates
                generator.shuffle(&shuffled)
                let mean = try FixedPointMean.mean(
                    of: shuffled,
                    layout: Self.layout,
                    valueBound: bound,
                    blockElementCount: block
                )
                #expect(mean == wanted)
            }
        }
    }

    /// 2^26 times a bound of 64 is where sums of 64 bits end: on both sides of it the means are those of the same values.
    @Test func narrowAndWideSumsGiveTheSameBits() throws {
        try withUpdates(magnitude: 1, weightLimit: 1000, factors: false) { updates in
            let narrow = try FixedPointMean.mean(of: updates, layout: Self.layout, valueBound: 64)
            let scaled = updates.map { update in
                var update = update
                update.weight <<= 20
                return update
            }
            // A power of two changes neither the sum's digits nor the total's.
            #expect(try FixedPointMean.mean(of: scaled, layout: Self.layout, valueBound: 64) == narrow)
            let columns = try UpdateColumns(of: scaled, layout: Self.layout, valueBound: 64)
            #expect(try columns.mean(weights: columns.updates.map(\.weight)) == narrow)
        }
    }

    @Test func normsAreThoseThatAdmissionMeasures() throws {
        try withUpdates(magnitude: 3, weightLimit: 2, factors: false) { updates in
            let norms = try UpdateNorms.squared(of: updates, layout: Self.layout, valueBound: 64)
            for (update, norm) in zip(updates, norms) {
                #expect(try UpdateFile(path: update.path, layout: Self.layout).check(bound: 64) == norm)
                let plain = try decoded(update).reduce(0.0) { $0 + Double($1) * Double($1) }
                // Sums of at most 2304 squares in another order.
                #expect(abs(norm - plain) <= 1e-12 * plain)
            }
            #expect(throws: AggregationError.valueOutOfRange(index: 0, bound: 0.001)) {
                try UpdateNorms.squared(of: updates, layout: Self.layout, valueBound: 0.001)
            }
        }
    }

    @Test func aValueOutOfRangeIsNamedByItsPlace() throws {
        let directory = NSTemporaryDirectory() + "held-\(UUID().uuidString)/"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        for (place, value) in [(0, 70), (900, -65), (2303, .nan), (1, .infinity)] as [(Int, Float)] {
            var values = [Float](repeating: 1, count: Self.layout.parameterCount)
            values[place] = value
            var residual: [Float] = []
            let update = UpdateEncoder.encode(
                ParameterVector(layout: Self.layout, values: values),
                as: .f32,
                metadata: [:],
                seed: 1,
                residual: &residual
            )
            try update.write(to: URL(fileURLWithPath: directory + "u"))
            #expect(throws: AggregationError.valueOutOfRange(index: place, bound: 64)) {
                try UpdateNorms.squared(
                    of: [SpooledUpdate(path: directory + "u", weight: 1)],
                    layout: Self.layout,
                    valueBound: 64
                )
            }
        }
    }

    @Test func theLowerMedianIsAMembersValue() {
        #expect(CohortMedian.lower([Int]()) == nil)
        #expect(CohortMedian.lower([7]) == 7 && CohortMedian.lower([9, 1]) == 1 && CohortMedian.lower([9, 1, 4]) == 4)
        #expect(CohortMedian.lower([4, 3, 2, 1]) == 2)
        #expect(CohortMedian.lowerOfPositive([0, 0, 0, 5, 6]) == 5 && CohortMedian.lowerOfPositive([0, 0]) == nil)
    }
}
