package import Foundation
import StrictJSON
package import Tensors

/// Weights in eight bits for devices: each row of a matrix has its own scale, symmetric about zero.
///
/// A matrix `name` is stored as I8 with `name.scale`, F32 `[rows]`; vectors stay F32. A value takes 1 byte, and a row 4 more.
package enum QuantizedWeights {
    /// The file as bytes.
    package static func encode(_ vector: ParameterVector) -> Data {
        var tensors: [(name: String, type: String, shape: [Int], bytes: Data)] = []
        for (index, tensor) in vector.layout.tensors.enumerated() {
            let values = vector.values[vector.layout.offsets[index]..<vector.layout.offsets[index + 1]]
            guard tensor.shape.count == 2 else {
                tensors.append((tensor.name, "F32", tensor.shape, data(Array(values))))
                continue
            }
            let width = tensor.shape[1]
            var scales: [Float] = []
            var codes = Data(capacity: values.count)
            for row in 0..<tensor.shape[0] {
                let start = values.startIndex + row * width
                let slice = values[start..<(start + width)]
                let largest = slice.reduce(Float(0)) { max($0, abs($1)) }
                let scale = largest > 0 ? largest / 127 : 1
                scales.append(scale)
                for value in slice {
                    codes.append(UInt8(bitPattern: Int8(max(-127, min(127, (value / scale).rounded())))))
                }
            }
            tensors.append((tensor.name, "I8", tensor.shape, codes))
            tensors.append((tensor.name + ".scale", "F32", [tensor.shape[0]], data(scales)))
        }
        // Values of four bytes come first, so that they are aligned.
        tensors.sort { ($0.type, $0.name) < ($1.type, $1.name) }
        var header: [String: JSONValue] = ["__metadata__": .object(["format": .string("martlet-int8")])]
        var offset = 0
        for tensor in tensors {
            header[tensor.name] = .object([
                "dtype": .string(tensor.type), "shape": .array(tensor.shape.map { .integer($0) }),
                "data_offsets": .array([.integer(offset), .integer(offset + tensor.bytes.count)]),
            ])
            offset += tensor.bytes.count
        }
        var json = Data(JSONValue.object(header).text.utf8)
        while json.count % 8 != 0 { json.append(0x20) }
        var file = withUnsafeBytes(of: UInt64(json.count).littleEndian) { Data($0) }
        file.append(json)
        for tensor in tensors { file.append(tensor.bytes) }
        return file
    }

    /// The tensors as floats; `nil` if the file has no I8 tensor.
    ///
    /// - Throws: `SafetensorsError`.
    package static func read(_ path: String) throws -> ParameterVector? {
        guard let file = FileManager.default.contents(atPath: path) else {
            throw SafetensorsError.inputOutput(path: path, errno: ENOENT)
        }
        guard file.count >= 8 else {
            throw SafetensorsError.truncated(expectedByteCount: 8, actualByteCount: file.count)
        }
        let length = try SafetensorsHeader.headerByteCount(Array(file.prefix(8)))
        guard file.count >= 8 + length else {
            throw SafetensorsError.truncated(expectedByteCount: 8 + length, actualByteCount: file.count)
        }
        let header = try SafetensorsHeader(json: Array(file[8..<(8 + length)]), fileByteCount: file.count)
        let entries = Dictionary(uniqueKeysWithValues: header.entries.map { ($0.specification.name, $0) })
        guard header.entries.contains(where: { $0.dataType == .int8 }) else { return nil }
        func part(_ name: String, _ type: TensorDataType) throws -> (shape: [Int], bytes: Data) {
            guard let entry = entries[name], entry.dataType == type else {
                throw SafetensorsError.malformedHeader(reason: "tensor '\(name)' is not \(type.rawValue)")
            }
            return (entry.specification.shape, file.subdata(in: entry.fileRange))
        }
        var values: [String: (shape: [Int], values: [Float])] = [:]
        for (name, entry) in entries {
            if entry.dataType == .int8 {
                let codes = try part(name, .int8)
                let scales = floats(try part(name + ".scale", .float32).bytes)
                guard codes.shape.count == 2, scales.count == codes.shape[0] else {
                    throw SafetensorsError.badOffsets(tensor: name + ".scale")
                }
                let width = codes.shape[1]
                let restored = codes.bytes.enumerated().map { Float(Int8(bitPattern: $1)) * scales[$0 / width] }
                values[name] = (codes.shape, restored)
            } else if !(name.hasSuffix(".scale") && entries[String(name.dropLast(6))] != nil) {
                let tensor = try part(name, .float32)
                values[name] = (tensor.shape, floats(tensor.bytes))
            }
        }
        let layout = ParameterLayout(values.map { .init(name: $0.key, shape: $0.value.shape) })
        return ParameterVector(layout: layout, values: layout.tensors.flatMap { values[$0.name]?.values ?? [] })
    }

    private static func data(_ values: [Float]) -> Data { values.withUnsafeBytes { Data($0) } }

    private static func floats(_ data: Data) -> [Float] {
        data.withUnsafeBytes { raw in
            (0..<(data.count / 4)).map {
                Float(bitPattern: UInt32(littleEndian: raw.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self)))
            }
        }
    }
}
