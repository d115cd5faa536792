import Aggregation
import Foundation
import Tensors
import Testing

struct MeanTests {
    private let layout = ParameterLayout([.init(name: "a", shape: [37, 11]), .init(name: "b", shape: [100])])

    private func withUpdates(
        _ count: Int,
        scale: Float = 1,
        seed: UInt64 = 7,
        _ body: ([SpooledUpdate], [[Float]]) throws -> Void
    ) throws {
        let directory = NSTemporaryDirectory() + "mean-\(UUID().uuidString)/"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        var generator = Xoshiro256StarStar(seed: seed)
        var updates: [SpooledUpdate] = []
        var values: [[Float]] = []
        for index in 0..<count {
            let vector = ParameterVector(
                layout: layout,
                values: (0..<layout.parameterCount).map { _ in scale * (2 * generator.nextUniform() - 1) }
            )
            let path = directory + "\(index)"
            try SafetensorsWriter.encode(vector).write(to: URL(fileURLWithPath: path))
            updates.append(SpooledUpdate(path: path, weight: 1 + generator.nextIndex(below: 500)))
            values.append(vector.values)
        }
        try body(updates, values)
    }

    @Test func meanIsTheSameToTheBitInAnyOrderAndBlockSize() throws {
        try withUpdates(9) { updates, values in
            let reference = try FixedPointMean.mean(of: updates, layout: layout, valueBound: 64)
            let total = Double(updates.reduce(0) { $0 + $1.weight })
            for index in 0..<layout.parameterCount {
                let exact = zip(updates, values).reduce(0.0) { $0 + Double($1.0.weight) * Double($1.1[index]) } / total
                // Each value is rounded to 2⁻³⁰, so a weighted mean is off by at most half a step.
                #expect(abs(reference[index] - exact) <= 0x1p-31 + 1e-15)
            }
            var generator = Xoshiro256StarStar(seed: 3)
            for block in [1, 7, 64, 10_000] {
                var shuffled = updates
                generator.shuffle(&shuffled)
                let mean = try FixedPointMean.mean(
                    of: shuffled,
                    layout: layout,
                    valueBound: 64,
                    blockElementCount: block
                )
                #expect(mean == reference)
            }
        }
    }

    @Test func valuesBeyondTheBoundAndForeignLayoutsAreRefused() throws {
        try withUpdates(2, scale: 65) { updates, _ in
            #expect(throws: AggregationError.self) {
                try FixedPointMean.mean(of: updates, layout: layout, valueBound: 64)
            }
            #expect(throws: AggregationError.layoutMismatch(path: updates[0].path)) {
                try FixedPointMean.mean(
                    of: updates,
                    layout: ParameterLayout([.init(name: "x", shape: [1])]),
                    valueBound: 1e3
                )
            }
            #expect(throws: AggregationError.self) {
                try FixedPointMean.mean(of: updates, layout: layout, valueBound: 1e30)
            }
        }
        #expect(throws: AggregationError.noUpdates) {
            try FixedPointMean.mean(of: [], layout: layout, valueBound: 64)
        }
    }

    @Test func boundedSumShrinksWhatClaimsToBeClipped() throws {
        try withUpdates(3, scale: 1) { updates, values in
            // A toy grid of 1/1024 with a bound of 2048 units: every update's norm (about 13) is far over it.
            let grid = BoundedSum.Grid(
                quantize: { Int64((Double($0) * $1 * 1024).rounded()) },
                shrinkFactor: { squared in squared > 2048 * 2048 ? 2048 / Double(squared).squareRoot() : 1 }
            )
            let sums = try BoundedSum.sum(
                of: [updates[0]],
                layout: layout,
                weightCap: 1,
                grid: grid,
                blockElementCount: 50
            )
            let norm = sums.reduce(0.0) { $0 + Double($1) * Double($1) }.squareRoot()
            #expect(norm <= 2048 && norm > 2000)
            let reversed = try BoundedSum.sum(of: updates.reversed(), layout: layout, weightCap: 1, grid: grid)
            let forward = try BoundedSum.sum(
                of: updates,
                layout: layout,
                weightCap: 1,
                grid: grid,
                blockElementCount: 3
            )
            #expect(forward == reversed)
        }
    }
}
