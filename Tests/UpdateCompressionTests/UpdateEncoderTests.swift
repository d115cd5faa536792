import Foundation
import Tensors
import TestSupport
import Testing

@testable import UpdateCompression

struct UpdateEncoderTests {
    private let scratch: Scratchpad

    init() throws { scratch = try Scratchpad() }

    private func decoded(_ data: Data, _ layout: ParameterLayout) throws -> [Float] {
        var values = [Float](repeating: .nan, count: layout.parameterCount)
        try UpdateFile(path: scratch.write(data), layout: layout).read(0..<values.count, into: &values)
        return values
    }

    @Test(arguments: UpdateEncoding.allCases)
    func theFileIsTheSameWhetherWrittenOrMadeInMemory(encoding: UpdateEncoding) throws {
        // More than two blocks, a tensor that ends in the middle of every encoding's blocks, and one without values.
        let layout = ParameterLayout([
            .init(name: "a", shape: [70_001]), .init(name: "b", shape: [0]), .init(name: "c", shape: [5]),
        ])
        let update = normalVector(layout, seed: 14)
        let encoder = UpdateEncoder(encoding, metadata: ["k": "v"], seed: 3)
        var (first, second): ([Float], [Float]) = ([], [])
        let path = scratch.path + "written"
        // What was there before does not show through.
        try Data(repeating: 1, count: 1 << 20).write(to: URL(fileURLWithPath: path))
        try encoder.write(update, to: path, residual: &first)
        #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == encoder.encode(update, residual: &second))
        #expect(first == second)
        #expect(throws: SafetensorsError.self) {
            try encoder.write(update, to: scratch.path + "no/such/directory", residual: &first)
        }
    }

    /// Whatever finite values: what is made is what the server's reader takes.
    ///
    /// Its refusal would be an answer by data.
    @Test(.slow, arguments: UpdateEncoding.allCases)
    func theReaderAdmitsWhateverFiniteValuesAreEncoded(encoding: UpdateEncoding) throws {
        try admits(
            encoding,
            bound: 64,
            [.leastNonzeroMagnitude, 1e-42, 1e-39, .leastNormalMagnitude, 1e-30, 1e-19, 1, 64]
        )
        // Beyond 65,504 a run does not ask for f16.
        guard encoding != .f16 else { return }
        try admits(encoding, bound: .greatestFiniteMagnitude, [1e-45, 1e19, 1e30, .greatestFiniteMagnitude])
    }

    private func admits(_ encoding: UpdateEncoding, bound: Float, _ sizes: [Float]) throws {
        var generator = Xoshiro256StarStar(seed: 77)
        func draw() -> Float { Float(generator.next() >> 40) / Float(1 << 24) * 2 - 1 }
        for count in [1, 5, 33, 4100] {
            let layout = ParameterLayout([.init(name: "w", shape: [count])])
            var updates = sizes.map { size in [Float](repeating: size, count: count) }
            updates += sizes.map { size in (0..<count).map { $0 == count / 2 ? -size : 0 } }
            updates += sizes.map { size in (0..<count).map { _ in draw() * size } }
            updates.append(
                (0..<count).map { _ in (sizes.randomElement(using: &generator) ?? 0) * (draw() < 0 ? -1 : 1) }
            )
            for (number, values) in updates.enumerated() {
                let update = ParameterVector(layout: layout, values: values)
                let encoder = UpdateEncoder(encoding, seed: UInt64(number), valueBound: bound)
                var residual: [Float] = []
                let path = try scratch.write(encoder.encode(update, residual: &residual))
                let file = try UpdateFile(path: path, layout: layout)
                do { _ = try file.check(bound: Double(bound)) } catch {
                    Issue.record("\(encoding), update \(number) of \(count) values: \(error)")
                }
            }
        }
    }

    /// Values at the bound, alone among zeros, all equal, and mixed: what rounding and rotation push furthest.
    @Test(.slow, arguments: UpdateEncoding.allCases, [Float(64), 0.1, 1.7e-3])
    func noDecodedValueIsBeyondTheBound(encoding: UpdateEncoding, bound: Float) throws {
        let count = 5000
        let layout = ParameterLayout([.init(name: "w", shape: [count])])
        let shapes: [(Int) -> Float] = [
            { $0 % 611 == 0 ? bound : 0 }, { $0 % 2 == 0 ? bound : -bound }, { bound * Float($0 % 7) / 6 },
            { $0 == 0 ? -bound : bound.nextDown },
        ]
        for (number, shape) in shapes.enumerated() {
            let update = ParameterVector(layout: layout, values: (0..<count).map(shape))
            for seed in 0..<4 {
                let encoder = UpdateEncoder(encoding, seed: UInt64(10 * number + seed), valueBound: bound)
                // What was left out before would carry the sum over the bound.
                var residual = update.values
                let values = try decoded(encoder.encode(update, residual: &residual), layout)
                #expect(values.allSatisfy { abs($0) <= bound }, "\(values.map { abs($0) }.max() ?? 0)")
                guard encoding == .topk else { continue }
                let kept = zip(values, residual).allSatisfy { $0 + $1 == 0 || $0 != 0 || $1 != 0 }
                let total = zip(values, residual).map { Double($0) + Double($1) }
                #expect(
                    kept && zip(total, update.values).allSatisfy { abs($0 - 2 * Double($1)) <= 1e-6 * Double(bound) }
                )
            }
        }
    }

    @Test func selectionInLinearTimeIsThatOfSorting() {
        var generator = Xoshiro256StarStar(seed: 31)
        for round in 0..<40 {
            let count = 1 + generator.nextIndex(below: 700)
            // Many equal magnitudes in some rounds, zeros and subnormal numbers in others.
            let values = (0..<count).map { _ -> Float in
                let value = 2 * generator.nextUniform() - 1
                switch round % 4 {
                case 0: return value
                case 1: return (value * 3).rounded()
                case 2: return value * .leastNormalMagnitude
                default: return value < 0 ? 0 : value * 1e30
                }
            }
            for kept in [0, 1, count / 3, count] {
                let sorted = values.indices.sorted { left, right in
                    let (a, b) = (abs(values[left]), abs(values[right]))
                    return a == b ? left < right : a > b
                }
                #expect(LargestMagnitudes.positions(of: kept, in: values[...]) == sorted.prefix(kept).sorted())
            }
        }
    }
}
