import Foundation
package import Tensors

/// Headers of safetensors files, and whole files with damage.
package struct SafetensorsTarget: FuzzTarget {
    package static let name = "safetensors"
    package static let testCaseCount = 20_000

    private static let numbers = [
        "0", "1", "4", "8", "-1", "1e3", "0.5", "9223372036854775807", "9223372036854775808", "-9223372036854775808",
        "18446744073709551616", "4611686018427387904", "true", "null", "\"4\"", "[]", "1e400", "1000000000000",
    ]
    private static let types = ["F32", "F16", "BF16", "I8", "U8", "I64", "U32", "BOOL", "f32", "", "F32\\u0000"]
    private static let fragments = ["\"", "\\", "{", "}", "[", ":", ",", "\\u0000", "é", "0", "-", " "].map {
        Array($0.utf8)
    }
    private let good: [UInt8]
    private let file: FuzzFile

    package init() throws {
        file = try FuzzFile()
        let layout = ParameterLayout([.init(name: "a", shape: [2, 3]), .init(name: "b", shape: [4])])
        good = Array(
            SafetensorsWriter.encode(ParameterVector(layout: layout, values: (0..<10).map(Float.init)), metadata: [:])
        )
    }

    package mutating func run(_ generator: inout Xoshiro256StarStar) throws -> Bool {
        if generator.oneIn(20) { return try damagedFile(&generator) }
        let json = Self.header(&generator)
        let size = 8 + json.count + 4 * generator.nextIndex(below: 14)
        guard let header = try? SafetensorsHeader(json: json, fileByteCount: size) else { return false }
        // The tensors of a header that is taken tile its file.
        var expected = header.dataOffset
        for entry in header.entries {
            try expect(
                entry.fileRange.lowerBound == expected && entry.fileRange.upperBound <= size,
                "a tensor outside its place",
                json
            )
            let count = entry.specification.shape.reduce(entry.dataType.byteCount, *)
            try expect(count == entry.fileRange.count, "a shape that does not fit", json)
            expected = entry.fileRange.upperBound
        }
        try expect(expected == size, "bytes that belong to nothing", json)
        try expect(header.layout.parameterCount <= size, "more parameters than bytes", json)
        return true
    }

    private static func header(_ generator: inout Xoshiro256StarStar) -> [UInt8] {
        func number() -> String {
            generator.oneIn(3) ? generator.pick(numbers) : String(4 * generator.nextIndex(below: 6))
        }
        var entries: [String] = []
        var offset = 0
        for index in 0..<generator.nextIndex(below: 4) {
            let extent = 1 + generator.nextIndex(below: 4)
            var shape = "\(extent)"
            var (begin, end) = ("\(offset)", "\(offset + 4 * extent)")
            offset += 4 * extent
            switch generator.nextIndex(below: 8) {
            case 0: shape += ",\(number())"
            case 1: begin = number()
            case 2: end = number()
            default: break
            }
            let type = generator.oneIn(5) ? generator.pick(types) : "F32"
            let name = generator.oneIn(20) ? "t0" : "t\(index)"
            entries.append(
                "\"\(name)\":{\"dtype\":\"\(type)\",\"shape\":[\(shape)],\"data_offsets\":[\(begin),\(end)]}"
            )
        }
        if generator.oneIn(4) { entries.append("\"__metadata__\":{\"a\":\(number())}") }
        if generator.oneIn(2000) { entries.append("\"deep\":" + String(repeating: "[", count: 5000)) }
        var bytes = Array(("{" + entries.joined(separator: ",") + "}").utf8)
        for _ in 0..<generator.nextIndex(below: 3) { generator.damage(&bytes, with: fragments) }
        return bytes
    }

    private func damagedFile(_ generator: inout Xoshiro256StarStar) throws -> Bool {
        var bytes = good
        for _ in 0...generator.nextIndex(below: 3) {
            // Half of the damage goes to the eight bytes of length, where a wrong reader would allocate.
            let place = generator.nextIndex(below: generator.oneIn(2) ? 8 : bytes.count)
            bytes[place] = UInt8(truncatingIfNeeded: generator.next())
        }
        bytes.removeLast(generator.nextIndex(below: 4))
        try file.write(bytes)
        guard let reader = try? SafetensorsFile(path: file.path) else { return false }
        try expect(reader.layout.parameterCount <= bytes.count / 2, "more parameters than bytes", bytes)
        _ = try? reader.readAll()
        return true
    }
}
