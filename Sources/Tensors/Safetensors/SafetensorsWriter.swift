public import Foundation

/// Writes parameters as safetensors: sorted by name, F32, metadata sorted by key, so equal input gives equal bytes.
public enum SafetensorsWriter {
    /// The file as bytes.
    public static func encode(_ vector: ParameterVector, metadata: [String: String] = [:]) -> Data {
        var file = header(for: vector.layout, metadata: metadata)
        file.reserveCapacity(file.count + 4 * vector.values.count)
        vector.values.withUnsafeBytes { file.append(contentsOf: $0) }
        return file
    }

    /// A tensor of any type, as the bytes that are written.
    package struct RawTensor {
        package var name: String
        package var dataType: String
        package var shape: [Int]
        package var bytes: [UInt8]

        /// Takes little-endian values.
        package init<Value>(_ name: String, _ dataType: String, _ shape: [Int], _ values: [Value]) {
            self.name = name
            self.dataType = dataType
            self.shape = shape
            bytes = values.withUnsafeBytes { Array($0) }
        }
    }

    /// Tensors of any types: wide types first, so that every value is aligned, then by name.
    package static func encode(_ tensors: [RawTensor], metadata: [String: String]) -> Data {
        func width(_ tensor: RawTensor) -> Int { TensorDataType(rawValue: tensor.dataType)?.byteCount ?? 1 }
        let sorted = tensors.sorted { left, right in
            width(left) == width(right)
                ? left.name.utf8.lexicographicallyPrecedes(right.name.utf8) : width(left) > width(right)
        }
        var offset = 0
        let entries = sorted.map { tensor in
            defer { offset += tensor.bytes.count }
            return entry(tensor.name, tensor.dataType, tensor.shape, offset..<(offset + tensor.bytes.count))
        }
        var file = header(entries: entries, metadata: metadata)
        for tensor in sorted { file.append(contentsOf: tensor.bytes) }
        return file
    }

    /// Writes a file of F32 values block by block; not synced, for what can be made again.
    ///
    /// - Parameters:
    ///   - layout: The tensors.
    ///   - path: Overwritten where it exists.
    ///   - fill: Puts the values of a range into the front of a buffer.
    /// - Throws: What `fill` throws, or the file system's error.
    package static func write(
        _ layout: ParameterLayout,
        to path: String,
        fill: (Range<Int>, inout [Float]) throws -> Void
    ) throws {
        guard FileManager.default.createFile(atPath: path, contents: header(for: layout, metadata: [:])) else {
            throw CocoaError(.fileWriteUnknown)
        }
        let file = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
        defer { try? file.close() }
        try file.seekToEnd()
        var values = [Float](repeating: 0, count: min(1 << 16, layout.parameterCount))
        var start = 0
        while start < layout.parameterCount {
            let range = start..<min(layout.parameterCount, start + values.count)
            try fill(range, &values)
            try file.write(contentsOf: values[..<range.count].withUnsafeBytes { Data($0) })
            start = range.upperBound
        }
    }

    /// The eight bytes of length and the JSON header, padded with spaces so that the data is aligned to eight bytes.
    public static func header(for layout: ParameterLayout, metadata: [String: String]) -> Data {
        header(
            entries: layout.tensors.enumerated().map { index, tensor in
                entry(tensor.name, "F32", tensor.shape, (layout.offsets[index] * 4)..<(layout.offsets[index + 1] * 4))
            },
            metadata: metadata
        )
    }

    /// The beginning of a file whose tensors' bytes follow each other in the order given.
    package static func header(
        of tensors: [(name: String, dataType: String, shape: [Int])],
        metadata: [String: String]
    ) -> Data {
        var offset = 0
        let entries = tensors.map { tensor in
            let width = TensorDataType(rawValue: tensor.dataType)?.byteCount ?? 1
            let range = offset..<(offset + tensor.shape.reduce(width, *))
            offset = range.upperBound
            return entry(tensor.name, tensor.dataType, tensor.shape, range)
        }
        return header(entries: entries, metadata: metadata)
    }

    private static func entry(_ name: String, _ dataType: String, _ shape: [Int], _ range: Range<Int>) -> String {
        let extents = shape.map(String.init).joined(separator: ",")
        return quoted(name)
            + ":{\"dtype\":\"\(dataType)\",\"shape\":[\(extents)],\"data_offsets\":[\(range.lowerBound),\(range.upperBound)]}"
    }

    private static func header(entries: [String], metadata: [String: String]) -> Data {
        var items = entries
        if !metadata.isEmpty {
            let pairs = metadata.sorted { $0.key < $1.key }.map { quoted($0.key) + ":" + quoted($0.value) }
            items.insert("\"__metadata__\":{" + pairs.joined(separator: ",") + "}", at: 0)
        }
        var json = "{" + items.joined(separator: ",") + "}"
        while json.utf8.count % 8 != 0 { json += " " }
        var data = Data()
        withUnsafeBytes(of: UInt64(json.utf8.count).littleEndian) { data.append(contentsOf: $0) }
        data.append(contentsOf: json.utf8)
        return data
    }

    private static func quoted(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case let control where control.value < 0x20:
                let digits = String(control.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }
}
