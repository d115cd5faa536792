import Foundation
import Tensors
import Testing
import UpdateCompression

/// Files that lie about themselves: each is refused by its code.
struct UpdateFileTests {
    private let layout = ParameterLayout([.init(name: "w", shape: [256])])
    private let scratch: Scratchpad

    init() throws { scratch = try Scratchpad() }

    private typealias Raw = SafetensorsWriter.RawTensor

    private func code(_ tensors: [SafetensorsWriter.RawTensor], _ metadata: [String: String] = [:]) throws -> String {
        let path = try scratch.write(SafetensorsWriter.encode(tensors, metadata: metadata))
        do {
            _ = try UpdateFile(path: path, layout: layout).check(bound: 64)
            return "accepted"
        } catch let error as UpdateFormatError {
            return error.code
        } catch {
            return "unreadable"
        }
    }

    private func sparse(_ indices: [UInt32], _ values: [Float]) throws -> String {
        try code(
            [
                Raw("w.indices", .uint32, [indices.count], indices), Raw("w.values", .float32, [values.count], values),
            ],
            ["encoding": "topk"]
        )
    }

    @Test func indicesMustAscendAndStayInRange() throws {
        #expect(try sparse([0, 7, 255], [1, 2, 3]) == "accepted")
        #expect(try sparse([7, 0, 255], [1, 2, 3]) == "indices_invalid")
        #expect(try sparse([7, 7, 255], [1, 2, 3]) == "indices_invalid")
        #expect(try sparse([0, 7, 256], [1, 2, 3]) == "indices_invalid")
        #expect(try sparse([0, 7, .max], [1, 2, 3]) == "indices_invalid")
        #expect(try sparse([0, 7], [1, 2, 3]) == "tensor_mismatch")
        #expect(try sparse([0, 7, 255], [1, .nan, 3]) == "not_finite")
        #expect(try sparse([0, 7, 255], [1, 65, 3]) == "value_out_of_range")
    }

    @Test(arguments: [
        (Float(0), "scale_invalid"), (.infinity, "scale_invalid"), (.nan, "scale_invalid"), (-1, "scale_invalid"),
        (0.25, "accepted"), (1e30, "value_out_of_range"),
    ])
    func scalesMustBePositiveAndFinite(scale: Float, expected: String) throws {
        let integers = [Int8](repeating: 3, count: 256)
        let tensors = [Raw("w", .int8, [256], integers), Raw("w.scale", .float32, [2], [Float(1), scale])]
        #expect(try code(tensors, ["encoding": "int8"]) == expected)
        let packed = [UInt8](repeating: 0xFF, count: 128)
        let scales = [Float](repeating: 1, count: 7) + [scale]
        #expect(
            try code(
                [Raw("w.packed", .uint8, [128], packed), Raw("w.scale", .float32, [8], scales)],
                ["encoding": "int4"]
            ) == expected
        )
    }

    /// A file of holes with 2²⁸ values has 8 MB of scales, of which the first is wrong.
    @Test func scalesAreReadInPieces() throws {
        let count = 1 << 28
        let scales = count / 128
        let header =
            #"{"__metadata__":{"encoding":"int8"},"w":{"dtype":"I8","shape":[\#(count)],"data_offsets":[0,\#(count)]},"#
            + #""w.scale":{"dtype":"F32","shape":[\#(scales)],"data_offsets":[\#(count),\#(count + 4 * scales)]}}"#
        let path = try scratch.write(Data())
        let file = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
        let length = withUnsafeBytes(of: UInt64(header.utf8.count).littleEndian) { Data($0) }
        try file.write(contentsOf: length + Data(header.utf8))
        try file.truncate(atOffset: UInt64(8 + header.utf8.count + count + 4 * scales))
        try file.close()
        let update = try UpdateFile(path: path, layout: ParameterLayout([.init(name: "w", shape: [count])]))
        // Bytes that this thread has read from files.
        func bytesRead() throws -> Int {
            let text = try String(contentsOfFile: "/proc/thread-self/io", encoding: .utf8)
            let line = text.split(separator: "\n").first { $0.hasPrefix("rchar: ") }
            return try #require(line.flatMap { Int($0.dropFirst("rchar: ".count)) })
        }
        let before = try bytesRead()
        let error = #expect(throws: UpdateFormatError.self) { try update.check(bound: 64) }
        #expect(error?.code == "scale_invalid")
        #expect(try bytesRead() - before < 1 << 20)
    }

    @Test func aBadScaleBehindTheFirstPieceIsFound() throws {
        let count = 40_000 * 128
        let layout = ParameterLayout([.init(name: "w", shape: [count])])
        var scales = [Float](repeating: 1, count: 40_000)
        for (place, code) in [(39_999, "scale_invalid"), (32_768, "scale_invalid"), (-1, "")] {
            if place >= 0 { scales[place] = .nan }
            let tensors = [
                Raw("w", .int8, [count], [Int8](repeating: 3, count: count)),
                Raw("w.scale", .float32, [40_000], scales),
            ]
            let path = try scratch.write(SafetensorsWriter.encode(tensors, metadata: ["encoding": "int8"]))
            let file = try UpdateFile(path: path, layout: layout)
            if code.isEmpty {
                #expect(try file.check(bound: 64) == 9 * Double(count))
            } else {
                let error = #expect(throws: UpdateFormatError.self) { try file.check(bound: 64) }
                #expect(error?.code == code)
            }
            if place >= 0 { scales[place] = 1 }
        }
    }

    @Test func aNaNInTheLastBlockIsFound() throws {
        var values = [Float](repeating: 1, count: 256)
        values[255] = .nan
        #expect(try code([Raw("w", .float32, [256], values)]) == "not_finite")
        values[255] = -.infinity
        #expect(try code([Raw("w", .float32, [256], values)]) == "not_finite")
        #expect(try code([Raw("w", .float16, [256], [UInt16](repeating: 0x7C00, count: 256))]) == "not_finite")
        #expect(try code([Raw("w", .bfloat16, [256], [UInt16](repeating: 0x7FC0, count: 256))]) == "not_finite")
        #expect(try code([Raw("w", .float16, [256], [UInt16](repeating: 0x3C00, count: 256))]) == "accepted")
    }

    @Test func namesShapesTypesAndEncodingsMustFit() throws {
        let values = [Float](repeating: 0, count: 256)
        #expect(try code([Raw("x", .float32, [256], values)]) == "tensor_mismatch")
        #expect(try code([Raw("w", .float32, [16, 16], values)]) == "tensor_mismatch")
        #expect(
            try code([Raw("w", .float32, [256], values), Raw("x", .float32, [1], [Float(1)])]) == "tensor_mismatch"
        )
        #expect(try code([Raw("w", .float32, [256], values)], ["encoding": "int8"]) == "tensor_mismatch")
        #expect(try code([Raw("w", .float32, [256], values)], ["encoding": "zip"]) == "encoding_mismatch")
        #expect(
            try code(
                [
                    Raw("w.rotated", .uint8, [32], [UInt8](repeating: 0, count: 32)),
                    Raw("w.scale", .float32, [1], [Float(1)]),
                ],
                ["encoding": "rotated1"]
            ) == "metadata_invalid"
        )
    }

    @Test func arbitraryChangesNeverTrap() throws {
        var generator = Xoshiro256StarStar(seed: 77)
        let update = normalVector(layout, seed: 1)
        for encoding in UpdateEncoding.allCases {
            var residual: [Float] = []
            let good = UpdateEncoder.encode(update, as: encoding, metadata: [:], seed: 3, residual: &residual)
            for _ in 0..<60 {
                var bytes = Array(good)
                for _ in 0...generator.nextIndex(below: 3) {
                    bytes[generator.nextIndex(below: bytes.count)] = UInt8(truncatingIfNeeded: generator.next())
                }
                if generator.nextIndex(below: 4) == 0 { bytes.removeLast(generator.nextIndex(below: bytes.count)) }
                let path = try scratch.write(Data(bytes))
                _ = try? UpdateFile(path: path, layout: layout).check(bound: 64)
            }
        }
    }
}
