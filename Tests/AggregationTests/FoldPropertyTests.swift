import Aggregation
import Foundation
import Tensors
import Testing
import UpdateCompression

/// The mean is the same to the bit in any order, in any blocks, whatever the encodings: against plain arithmetic.
struct FoldPropertyTests {
    private let layout = ParameterLayout([
        .init(name: "a", shape: [73, 11]), .init(name: "b", shape: [9001]), .init(name: "c", shape: []),
    ])

    private func withMixedUpdates(
        magnitude: Float = 2,
        weightLimit: Int = 100_000,
        _ body: ([SpooledUpdate]) throws -> Void
    ) throws {
        let directory = NSTemporaryDirectory() + "fold-\(UUID().uuidString)/"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        var generator = Xoshiro256StarStar(seed: 12)
        var updates: [SpooledUpdate] = []
        for (index, encoding) in (UpdateEncoding.allCases + UpdateEncoding.allCases).enumerated() {
            let values = (0..<layout.parameterCount).map { _ in magnitude * (2 * generator.nextUniform() - 1) }
            var residual: [Float] = []
            let data = UpdateEncoder.encode(
                ParameterVector(layout: layout, values: values),
                as: encoding,
                metadata: [:],
                seed: generator.next(),
                residual: &residual
            )
            try data.write(to: URL(fileURLWithPath: directory + "\(index)"))
            updates.append(
                SpooledUpdate(path: directory + "\(index)", weight: 1 + generator.nextIndex(below: weightLimit))
            )
        }
        try body(updates)
    }

    /// The second time sums of eight leave what a double holds exactly, and are made in integers.
    @Test(arguments: [(2, 100_000, 1024), (10_000, 2000, 65_536)] as [(Float, Int, Double)])
    func everyEncodingFoldsToWhatPlainArithmeticGives(_ magnitude: Float, _ weightLimit: Int, _ bound: Double) throws {
        try withMixedUpdates(magnitude: magnitude, weightLimit: weightLimit) { updates in
            var expected = [Int64](repeating: 0, count: layout.parameterCount)
            for update in updates {
                var values = [Float](repeating: 0, count: layout.parameterCount)
                try UpdateFile(path: update.path, layout: layout).read(0..<values.count, into: &values)
                for index in values.indices {
                    let rounded = (Double(values[index]) * 0x1p30).rounded(.toNearestOrEven)
                    expected[index] += Int64(rounded) * Int64(update.weight)
                }
            }
            let total = Double(updates.reduce(0) { $0 + $1.weight })
            let mean = try FixedPointMean.mean(of: updates, layout: layout, valueBound: bound)
            #expect(mean == expected.map { Double($0) * 0x1p-30 / total })
        }
    }

    @Test func orderBlocksAndGroupsDoNotChangeABit() throws {
        try withMixedUpdates { updates in
            let reference = try FixedPointMean.mean(of: updates, layout: layout, valueBound: 1024)
            var generator = Xoshiro256StarStar(seed: 5)
            for block in [777, 4096, 1 << 16] {
                var shuffled = updates
                generator.shuffle(&shuffled)
                let mean = try FixedPointMean.mean(
                    of: shuffled,
                    layout: layout,
                    valueBound: 1024,
                    blockElementCount: block
                )
                #expect(mean == reference)
            }
            // More files than are open at a time: sums go on from group to group.
            let many = (0..<140).map { updates[$0 % updates.count] }
            let forward = try FixedPointMean.mean(of: many, layout: layout, valueBound: 64)
            #expect(try FixedPointMean.mean(of: many.reversed(), layout: layout, valueBound: 64) == forward)
        }
    }

    @Test func memoryAndFilesGiveTheSame() throws {
        try withMixedUpdates { updates in
            let vectors = try updates.map { update in
                var values = [Float](repeating: 0, count: layout.parameterCount)
                try UpdateFile(path: update.path, layout: layout).read(0..<values.count, into: &values)
                return values
            }
            let pointers = vectors.map { values in
                let pointer = UnsafeMutablePointer<Float>.allocate(capacity: values.count)
                pointer.initialize(from: values, count: values.count)
                return pointer
            }
            defer { for pointer in pointers { pointer.deallocate() } }
            let inputs = zip(pointers, updates).map { (values: UnsafePointer($0.0), weight: $0.1.weight) }
            let mean = try FixedPointMean.mean(of: inputs, count: layout.parameterCount, valueBound: 1024)
            #expect(mean == (try FixedPointMean.mean(of: updates, layout: layout, valueBound: 1024)))
            #expect(throws: AggregationError.self) {
                pointers[2][layout.parameterCount - 1] = .nan
                return try FixedPointMean.mean(of: inputs, count: layout.parameterCount, valueBound: 1024)
            }
        }
    }

    @Test func roundingIsToNearestEvenAtTheEdges() throws {
        let layout = ParameterLayout([.init(name: "w", shape: [8])])
        let step = Float(0x1p-30)
        let values: [Float] = [0, -0.0, 0.5 * step, 1.5 * step, -0.5 * step, -2.5 * step, 1024, -1024]
        let expected: [Double] = [0, 0, 0, 2, 0, -2, 0x1p40, -0x1p40]
        try values.withUnsafeBufferPointer { buffer in
            let base = try #require(buffer.baseAddress)
            let mean = try FixedPointMean.mean(
                of: [(values: base, weight: 1)],
                count: layout.parameterCount,
                valueBound: 1024
            )
            #expect(mean.map { $0 * 0x1p30 } == expected)
        }
    }

    /// The client's own clipping is not believed: whatever the encoding, the sum is bounded on the grid.
    @Test(arguments: UpdateEncoding.allCases)
    func anEncodedUpdateBeyondTheNormIsClippedAgain(encoding: UpdateEncoding) throws {
        let directory = NSTemporaryDirectory() + "fold-\(UUID().uuidString)/"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let bound = 1 << 20
        let grid = BoundedSum.Grid(
            quantize: { Int64((Double($0) * $1 * 0x1p20).rounded(.toNearestOrEven)) },
            shrinkFactor: { squared in
                squared > UInt128(bound) * UInt128(bound) ? (Double(bound) - 200) / Double(squared).squareRoot() : 1
            }
        )
        var generator = Xoshiro256StarStar(seed: 6)
        let values = (0..<layout.parameterCount).map { _ in 4 * generator.nextUniform() - 2 }
        for factor in [Float(1), 1e-4] {
            var residual: [Float] = []
            let update = ParameterVector(layout: layout, values: values.map { $0 * factor })
            let path = directory + "update"
            try UpdateEncoder.encode(update, as: encoding, metadata: [:], seed: 1, residual: &residual)
                .write(to: URL(fileURLWithPath: path))
            var decoded = [Float](repeating: 0, count: layout.parameterCount)
            try UpdateFile(path: path, layout: layout).read(0..<decoded.count, into: &decoded)
            let sums = try BoundedSum.sum(
                of: [SpooledUpdate(path: path, weight: 1)],
                layout: layout,
                weightCap: 1,
                grid: grid,
                blockElementCount: 1000
            )
            let squared = sums.reduce(UInt128(0)) { $0 + UInt128($1.magnitude) * UInt128($1.magnitude) }
            #expect(squared <= UInt128(bound) * UInt128(bound))
            // One that is within the bound is summed as it is; one far beyond it keeps its direction and nearly all of the bound.
            let norm = VectorKernels.squaredNorm(decoded).squareRoot()
            if norm < 0.99 {
                #expect(zip(sums, decoded).allSatisfy { $0 == Int64((Double($1) * 0x1p20).rounded(.toNearestOrEven)) })
            } else {
                #expect(Double(squared).squareRoot() > 0.999 * Double(bound) - 300)
            }
        }
    }

    /// Weights and values so large that products leave the doubles' exact integers take the other way, to the same bits.
    @Test func hugeWeightsAndValuesStayExact() throws {
        var generator = Xoshiro256StarStar(seed: 8)
        let count = 1500
        let inputs = (0..<21).map { row in
            let values = UnsafeMutablePointer<Float>.allocate(capacity: count)
            for index in 0..<count {
                values[index] = (generator.nextUniform() - 0.5) * (index % 700 == row ? 120 : 1e-3)
            }
            return (values: UnsafePointer(values), weight: row % 3 == 0 ? 8_000_000 : 1 + row)
        }
        defer { for input in inputs { input.values.deallocate() } }
        var sums = [Int64](repeating: 0, count: count)
        for (values, weight) in inputs {
            for index in 0..<count {
                sums[index] += Int64((Double(values[index]) * 0x1p30).rounded(.toNearestOrEven)) * Int64(weight)
            }
        }
        let total = Double(inputs.reduce(0) { $0 + $1.weight })
        let mean = try FixedPointMean.mean(of: inputs, count: count, valueBound: 60, blockElementCount: 640)
        #expect(mean == sums.map { Double($0) * 0x1p-30 / total })
        #expect(try FixedPointMean.mean(of: inputs.reversed(), count: count, valueBound: 60) == mean)
    }
}
