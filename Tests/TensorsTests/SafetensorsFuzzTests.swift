import Foundation
import Tensors
import Testing

/// Structured mutations of good files.
///
/// `MARTLET_FUZZ_CASES` sets how many headers (20,000 without it); the seed is fixed.
struct SafetensorsFuzzTests {
    static let caseCount = ProcessInfo.processInfo.environment["MARTLET_FUZZ_CASES"].flatMap { Int($0) } ?? 20_000

    private static let numbers = [
        "0", "1", "4", "8", "-1", "1e3", "0.5", "9223372036854775807", "9223372036854775808", "-9223372036854775808",
        "18446744073709551616", "4611686018427387904", "true", "null", "\"4\"", "[]", "1e400",
    ]
    private static let types = ["F32", "F16", "BF16", "I8", "I64", "U32", "BOOL", "f32", "", "F32\\u0000"]

    private static func header(_ generator: inout Xoshiro256StarStar) -> [UInt8] {
        func number() -> String {
            generator.nextIndex(below: 3) == 0
                ? numbers[generator.nextIndex(below: numbers.count)] : String(4 * generator.nextIndex(below: 6))
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
            let type = generator.nextIndex(below: 5) == 0 ? types[generator.nextIndex(below: types.count)] : "F32"
            entries.append(
                "\"t\(index)\":{\"dtype\":\"\(type)\",\"shape\":[\(shape)],\"data_offsets\":[\(begin),\(end)]}"
            )
        }
        if generator.nextIndex(below: 4) == 0 { entries.append("\"__metadata__\":{\"a\":\(number())}") }
        if generator.nextIndex(below: 50) == 0 { entries.append("\"deep\":" + String(repeating: "[", count: 5000)) }
        var bytes = Array(("{" + entries.joined(separator: ",") + "}").utf8)
        for _ in 0..<generator.nextIndex(below: 3) where !bytes.isEmpty {
            let place = generator.nextIndex(below: bytes.count)
            switch generator.nextIndex(below: 3) {
            case 0: bytes[place] = UInt8(truncatingIfNeeded: generator.next())
            case 1: bytes.remove(at: place)
            default: bytes.insert(UInt8(truncatingIfNeeded: generator.next()), at: place)
            }
        }
        return bytes
    }

    @Test func headersThatAreTakenTileTheirFile() {
        var generator = Xoshiro256StarStar(seed: 88)
        var taken = 0
        for index in 0..<Self.caseCount {
            let json = Self.header(&generator)
            let size = 8 + json.count + 4 * generator.nextIndex(below: 14)
            guard let header = try? SafetensorsHeader(json: json, fileByteCount: size) else { continue }
            taken += 1
            var expected = header.dataOffset
            for entry in header.entries {
                #expect(entry.fileRange.lowerBound == expected && entry.fileRange.upperBound <= size, "case \(index)")
                let count = entry.specification.shape.reduce(entry.dataType.byteCount, *)
                #expect(count == entry.fileRange.count, "case \(index)")
                expected = entry.fileRange.upperBound
            }
            #expect(expected == size, "case \(index)")
            #expect(header.layout.parameterCount <= size)
        }
        #expect(taken > Self.caseCount / 200, "some mutated headers are still good: \(taken)")
    }

    @Test func damagedFilesAreReadOrRefused() throws {
        let layout = ParameterLayout([.init(name: "a", shape: [2, 3]), .init(name: "b", shape: [4])])
        let good = SafetensorsWriter.encode(
            ParameterVector(layout: layout, values: (0..<10).map(Float.init)),
            metadata: [:]
        )
        let path = NSTemporaryDirectory() + "fuzz-\(UUID().uuidString).safetensors"
        defer { try? FileManager.default.removeItem(atPath: path) }
        var generator = Xoshiro256StarStar(seed: 89)
        for _ in 0..<(Self.caseCount / 20) {
            var bytes = Array(good)
            for _ in 0...generator.nextIndex(below: 3) {
                // Half of the damage goes to the eight bytes of length, where a wrong reader would allocate.
                let place = generator.nextIndex(below: generator.nextIndex(below: 2) == 0 ? 8 : bytes.count)
                bytes[place] = UInt8(truncatingIfNeeded: generator.next())
            }
            bytes.removeLast(generator.nextIndex(below: 4))
            try Data(bytes).write(to: URL(fileURLWithPath: path))
            guard let file = try? SafetensorsFile(path: path) else { continue }
            #expect(file.layout.parameterCount <= bytes.count / 2)
            _ = try? file.readAll()
        }
    }
}
