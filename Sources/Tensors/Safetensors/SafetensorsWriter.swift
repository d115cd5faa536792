public import Foundation
import StrictJSON

/// Writes parameters as safetensors: sorted by name, F32, metadata sorted by key, so equal input gives equal bytes.
public enum SafetensorsWriter {
    /// The file as bytes.
    public static func encode(_ vector: ParameterVector, metadata: [String: String] = [:]) -> Data {
        var file = header(for: vector.layout, metadata: metadata)
        file.reserveCapacity(file.count + 4 * vector.values.count)
        vector.values.withUnsafeBytes { file.append(contentsOf: $0) }
        return file
    }

    /// The file with spaces added to its header until it has `byteCount` bytes; a longer file is returned as it is.
    ///
    /// For updates of private runs: all have the length that the assignment names, so that the length says nothing about the data.
    package static func padded(_ file: Data, to byteCount: Int) -> Data {
        let missing = byteCount - file.count
        guard missing > 0, file.count >= 8 else { return file }
        let start = file.startIndex
        let length = (0..<8).reduce(0) { $0 | Int(file[start + $1]) << (8 * $1) }
        var result = Data(capacity: byteCount)
        withUnsafeBytes(of: UInt64(length + missing).littleEndian) { result.append(contentsOf: $0) }
        result.append(file[(start + 8)..<(start + 8 + length)])
        result.append(contentsOf: [UInt8](repeating: 0x20, count: missing))
        result.append(file[(start + 8 + length)...])
        return result
    }

    /// A tensor of any dtype whose bytes are written in pieces.
    package struct Section {
        package var name: String
        package var dataType: TensorDataType
        package var shape: [Int]

        /// Describes a tensor.
        package init(_ name: String, _ dataType: TensorDataType, _ shape: [Int]) {
            self.name = name
            self.dataType = dataType
            self.shape = shape
        }

        /// The number of bytes of its values.
        package var byteCount: Int { shape.reduce(1, *) * dataType.byteCount }
    }

    /// A tensor of any dtype with its bytes.
    package struct RawTensor {
        package var section: Section
        package var bytes: [UInt8]

        /// Copies the bytes of values, which are little-endian and as wide as the dtype.
        package init<Value>(_ name: String, _ dataType: TensorDataType, _ shape: [Int], _ values: [Value]) {
            section = Section(name, dataType, shape)
            bytes = values.withUnsafeBytes { Array($0) }
        }
    }

    /// A file of tensors of any dtypes.
    package static func encode(_ tensors: [RawTensor], metadata: [String: String]) -> Data {
        let (header, starts, byteCount) = header(for: tensors.map(\.section), metadata: metadata)
        var file = Data(count: byteCount)
        file.replaceSubrange(0..<header.count, with: header)
        for (start, tensor) in zip(starts, tensors) {
            file.replaceSubrange(start..<(start + tensor.bytes.count), with: tensor.bytes)
        }
        return file
    }

    /// The header of a file of tensors of any dtypes, and where in the file each section begins.
    ///
    /// Wide dtypes come first, so that every value is aligned; sections of one width are sorted by name.
    ///
    /// - Parameters:
    ///   - sections: The tensors.
    ///   - metadata: The strings beside them.
    ///   - minimumByteCount: The least size of the header with its eight bytes of length; spaces fill it up.
    /// - Returns: The header, the sections' places, and the size of the whole file.
    package static func header(
        for sections: [Section],
        metadata: [String: String],
        minimumByteCount: Int = 0
    ) -> (header: Data, starts: [Int], byteCount: Int) {
        let order = sections.indices.sorted { left, right in
            let (a, b) = (sections[left], sections[right])
            return a.dataType.byteCount == b.dataType.byteCount
                ? a.name.utf8.lexicographicallyPrecedes(b.name.utf8) : a.dataType.byteCount > b.dataType.byteCount
        }
        var starts = [Int](repeating: 0, count: sections.count)
        var offset = 0
        let entries = order.map { index in
            let section = sections[index]
            starts[index] = offset
            offset += section.byteCount
            return entry(section.name, section.dataType.rawValue, section.shape, starts[index]..<offset)
        }
        let header = header(entries: entries, metadata: metadata, minimumByteCount: minimumByteCount)
        return (header, starts.map { $0 + header.count }, header.count + offset)
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

    /// The header of a file whose tensors' bytes follow each other in the given order.
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
        let fields = [
            ("dtype", JSONText.quoted(dataType)), ("shape", JSONText.array(shape.map(String.init))),
            ("data_offsets", JSONText.array([String(range.lowerBound), String(range.upperBound)])),
        ]
        return JSONText.quoted(name) + ":" + JSONText.object(fields)
    }

    private static func header(
        entries: [String],
        metadata: [String: String],
        minimumByteCount: Int = 0
    ) -> Data {
        var items = entries
        if !metadata.isEmpty {
            let pairs = metadata.sorted { $0.key < $1.key }.map { ($0.key, JSONText.quoted($0.value)) }
            items.insert(JSONText.quoted("__metadata__") + ":" + JSONText.object(pairs), at: 0)
        }
        var json = "{" + items.joined(separator: ",") + "}"
        let missing = minimumByteCount - 8 - json.utf8.count
        if missing > 0 { json += String(repeating: " ", count: missing) }
        while json.utf8.count % 8 != 0 { json += " " }
        var data = Data()
        withUnsafeBytes(of: UInt64(json.utf8.count).littleEndian) { data.append(contentsOf: $0) }
        data.append(contentsOf: json.utf8)
        return data
    }
}
