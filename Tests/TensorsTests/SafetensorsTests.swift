import Foundation
import Testing

@testable import Tensors

struct SafetensorsTests {
    private let vector = ParameterVector(
        layout: ParameterLayout([
            TensorSpecification(name: "b", shape: [2, 3]), TensorSpecification(name: "a\"q", shape: [4]),
            TensorSpecification(name: "scalar", shape: []),
        ]),
        values: (0..<11).map { Float($0) * 0.25 - 1 }
    )

    @discardableResult
    private func withFile<Result>(_ data: Data, _ body: (String) throws -> Result) throws -> Result {
        let path = NSTemporaryDirectory() + "tensors-\(UUID().uuidString).safetensors"
        try data.write(to: URL(fileURLWithPath: path))
        defer { try? FileManager.default.removeItem(atPath: path) }
        return try body(path)
    }

    @Test func writtenFileReadsBackToTheBit() throws {
        let data = SafetensorsWriter.encode(vector, metadata: ["num_examples": "7", "note": "a\nb"])
        try withFile(data) { path in
            let file = try SafetensorsFile(path: path)
            #expect(try file.readAll() == vector)
            #expect(file.header.metadata == ["num_examples": "7", "note": "a\nb"])
            var block = [Float](repeating: 0, count: 5)
            try file.read(3..<8, into: &block)
            #expect(block == Array(vector.values[3..<8]))
        }
    }

    @Test func everyTruncationIsRefused() throws {
        let data = SafetensorsWriter.encode(vector, metadata: [:])
        for length in 0..<data.count {
            try withFile(data.prefix(length)) { path in
                #expect(throws: SafetensorsError.self) { _ = try SafetensorsFile(path: path) }
            }
        }
        try withFile(data + [0]) { path in
            #expect(throws: SafetensorsError.trailingBytes(count: 1)) { _ = try SafetensorsFile(path: path) }
        }
    }

    @Test(arguments: [
        #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#,
        #"{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#,
        #"{"a":{"dtype":"F32","shape":[9223372036854775807,4],"data_offsets":[0,8]}}"#,
        #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}"#,
        #"{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#,
        #"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
        #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,9223372036854775807]}}"#,
        #"{"a":{"dtype":"F32","shape":[true,2],"data_offsets":[0,8]}}"#,
        #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],}}"#,
        // The format has no name twice, and begins with its brace.
        #"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
        #"{"__metadata__":{"n":"1","n":"2"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
        #" {"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
        #"[]"#, #"{"__metadata__":{"a":1}}"#, #"{"a":null}"#, "",
    ])
    func badHeadersAreRefused(json: String) {
        #expect(throws: SafetensorsError.self) {
            _ = try SafetensorsHeader(json: Array(json.utf8), fileByteCount: 8 + json.utf8.count + 8)
        }
    }

    @Test func aHeaderMayEndInSpaces() throws {
        let json = #"{"__metadata__":{"n":"1"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}   "#
        let header = try SafetensorsHeader(json: Array(json.utf8), fileByteCount: 8 + json.utf8.count + 8)
        #expect(header.metadata == ["n": "1"] && header.entries.map(\.specification.name) == ["a"])
    }

    @Test func headerLengthIsBounded() {
        #expect(throws: SafetensorsError.self) {
            _ = try SafetensorsHeader.headerByteCount([255, 255, 255, 255, 255, 255, 255, 127])
        }
    }

    @Test func halfPrecisionValues() {
        for (bits, value) in [
            (0x3C00, 1), (0xC000, -2), (0x7BFF, 65504), (0x0001, 0x1p-24), (0x8000, -0.0), (0x3555, 0.333251953125),
        ] as [(UInt16, Float)] {
            #expect(HalfPrecision.float(fromBits: bits).bitPattern == value.bitPattern)
        }
        #expect(HalfPrecision.float(fromBits: 0x7C00) == .infinity)
        #expect(HalfPrecision.float(fromBits: 0x7E00).isNaN)
    }

    @Test func generatorMatchesTheReference() {
        // Reference outputs: SplitMix64 from state 0 as published with the algorithm.
        var mixer = SplitMix64(state: 0)
        #expect(mixer.next() == 0xE220_A839_7B1D_CDAF)
        #expect(mixer.next() == 0x6E78_9E6A_A1B9_65F4)
    }
}
