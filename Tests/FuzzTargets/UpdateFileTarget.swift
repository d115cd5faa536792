import Foundation
package import Tensors
import UpdateCompression

/// Updates in every encoding, damaged in header and values.
package struct UpdateFileTarget: FuzzTarget {
    package static let name = "update"
    package static let testCaseCount = 3000
    private static let fragments = ["\"", "0", "9", ",", "F16", ".scale", "rotated1", "topk", "[", "-", "\0"].map {
        Array($0.utf8)
    }
    private static let bound = 64.0
    private let layout = ParameterLayout([
        .init(name: "a", shape: [3, 50]), .init(name: "b", shape: [1]), .init(name: "c", shape: [33]),
    ])
    private let good: [[UInt8]]
    private let file: FuzzFile
    private let scratch = UpdateScratch()

    package init() throws {
        file = try FuzzFile()
        var generator = Xoshiro256StarStar(seed: 3)
        let values = (0..<layout.parameterCount).map { _ in generator.nextUniform() * 4 - 2 }
        let update = ParameterVector(layout: layout, values: values)
        good = UpdateEncoding.allCases.map { encoding in
            var residual: [Float] = []
            let data = UpdateEncoder.encode(
                update,
                as: encoding,
                metadata: ["num_examples": "3"],
                seed: 5,
                residual: &residual
            )
            return Array(data)
        }
    }

    package mutating func run(_ generator: inout Xoshiro256StarStar) throws -> Bool {
        var bytes = generator.pick(good)
        let headerEnd = 8 + Int(bytes[0]) + Int(bytes[1]) << 8
        switch generator.nextIndex(below: 4) {
        case 0:
            var header = Array(bytes[8..<headerEnd])
            for _ in 0...generator.nextIndex(below: 3) { generator.damage(&header, with: Self.fragments) }
            let length = (0..<8).map { UInt8(truncatingIfNeeded: header.count >> (8 * $0)) }
            bytes = length + header + bytes[headerEnd...]
        case 1:
            let place = generator.nextIndex(below: 8)
            bytes[place] = UInt8(truncatingIfNeeded: generator.next())
        default:
            for _ in 0...generator.nextIndex(below: 4) where headerEnd < bytes.count {
                let place = headerEnd + generator.nextIndex(below: bytes.count - headerEnd)
                // Exponents of all ones and signs, where numbers become infinite, NaN or negative.
                bytes[place] = generator.pick([0x7F, 0xFF, 0x80, 0, UInt8(truncatingIfNeeded: generator.next())])
            }
        }
        if generator.oneIn(10) { bytes.removeLast(generator.nextIndex(below: bytes.count)) }
        try file.write(bytes)
        guard let reader = try? UpdateFile(path: file.path, layout: layout),
            let squares = try? reader.check(bound: Self.bound)
        else { return false }
        try expectBounded(reader, squares, split: generator.nextIndex(below: layout.parameterCount + 1), bytes)
        return true
    }

    /// What was checked holds for every way of reading: values within the bound, and sums that are theirs.
    private func expectBounded(_ file: UpdateFile, _ squares: Double, split: Int, _ bytes: [UInt8]) throws {
        let count = layout.parameterCount
        var values = [Float](repeating: 0, count: count)
        try file.read(0..<count, into: &values)
        try expect(values.allSatisfy { abs(Double($0)) <= Self.bound }, "a checked value beyond the bound", bytes)
        let norm = values.reduce(0.0) { $0 + Double($1) * Double($1) }
        try expect(abs(norm - squares) <= 1e-6 * max(1, norm), "the norm \(squares) is \(norm)", bytes)
        var parts = [Float](repeating: 0, count: count)
        try file.read(0..<split, into: &parts)
        var tail = [Float](repeating: 0, count: count - split)
        try file.read(split..<count, into: &tail)
        parts.replaceSubrange(split..., with: tail)
        try expect(parts == values, "values differ when they are read from \(split) on", bytes)
        let scale = 0x1p20
        var sums = [Int64](repeating: 0, count: count)
        let isGood = try sums.withUnsafeMutableBufferPointer { sums in
            guard let base = sums.baseAddress else { return false }
            let first = try file.fold(0..<split, into: base, scale: scale, weight: 3, bound: Self.bound, scratch)
            return try file.fold(
                split..<count,
                into: base + split,
                scale: scale,
                weight: 3,
                bound: Self.bound,
                scratch
            ) && first
        }
        try expect(isGood, "the fold refuses what the check took", bytes)
        for (sum, value) in zip(sums, values) {
            let expected = Int64((Double(value) * scale).rounded(.toNearestOrEven)) * 3
            try expect(sum == expected, "the sum of \(value) is \(sum), not \(expected)", bytes)
        }
    }
}
