import StrictJSON

/// How a tensor's values are stored.
public enum TensorDataType: String, Sendable, Hashable {
    /// IEEE 754 binary32.
    case float32 = "F32"
    /// IEEE 754 binary16.
    case float16 = "F16"
    /// The upper half of a binary32.
    case bfloat16 = "BF16"
    /// Signed bytes.
    case int8 = "I8"
    /// Unsigned bytes.
    case uint8 = "U8"
    /// Unsigned 32-bit integers.
    case uint32 = "U32"

    /// Bytes of one value.
    public var byteCount: Int {
        switch self {
        case .float32, .uint32: 4
        case .float16, .bfloat16: 2
        case .int8, .uint8: 1
        }
    }
}

/// The checked header of a safetensors file.
///
/// The tensors tile the data exactly: no gap, no overlap, nothing after the last one. Source: the format's own description,
/// github.com/huggingface/safetensors.
public struct SafetensorsHeader: Sendable, Equatable {
    /// One tensor's place in the file.
    public struct Entry: Sendable, Equatable {
        /// Name and shape.
        public var specification: TensorSpecification
        /// How it is stored.
        public var dataType: TensorDataType
        /// Its bytes, counted from the beginning of the file.
        public var fileRange: Range<Int>
    }

    /// The tensors in the order of their data.
    public let entries: [Entry]
    /// The `__metadata__` strings.
    public let metadata: [String: String]
    /// The number of bytes before the data: 8 and the header's length.
    public let dataOffset: Int

    /// The largest header that is read, in bytes: enough for some ten thousand tensors.
    public static let headerByteLimit = 1 << 20

    /// The names and shapes as a layout.
    public var layout: ParameterLayout { ParameterLayout(entries.map(\.specification)) }

    /// Reads the length of the JSON part from the first eight bytes.
    ///
    /// - Throws: ``SafetensorsError`` if there are fewer bytes, or the length is over ``headerByteLimit``.
    public static func headerByteCount(_ prefix: [UInt8]) throws(SafetensorsError) -> Int {
        guard prefix.count >= 8 else { throw .truncated(expectedByteCount: 8, actualByteCount: prefix.count) }
        let length = (0..<8).reduce(UInt64(0)) { $0 | UInt64(prefix[$1]) << (8 * UInt64($1)) }
        guard length <= UInt64(headerByteLimit) else {
            throw .headerTooLarge(byteCount: length, limit: headerByteLimit)
        }
        return Int(length)
    }

    /// Parses and checks the header.
    ///
    /// - Parameters:
    ///   - json: The header's JSON bytes, without the eight bytes of length.
    ///   - fileByteCount: The size of the whole file.
    /// - Throws: ``SafetensorsError`` with the tensor and the rule that it breaks.
    public init(json: [UInt8], fileByteCount: Int) throws(SafetensorsError) {
        let dataOffset = 8 + json.count
        var entries: [Entry] = []
        var metadata: [String: String] = [:]
        for (name, value) in try Self.fields(json) {
            if name == "__metadata__" {
                metadata = try Self.metadata(value)
                continue
            }
            entries.append(try Self.entry(name: name, value: value, dataOffset: dataOffset))
        }
        entries.sort {
            ($0.fileRange.lowerBound, $0.fileRange.upperBound) < ($1.fileRange.lowerBound, $1.fileRange.upperBound)
        }
        var expected = dataOffset
        for entry in entries {
            guard entry.fileRange.lowerBound == expected else { throw .badOffsets(tensor: entry.specification.name) }
            expected = entry.fileRange.upperBound
        }
        guard expected <= fileByteCount else {
            throw .truncated(expectedByteCount: expected, actualByteCount: fileByteCount)
        }
        guard expected == fileByteCount else { throw .trailingBytes(count: fileByteCount - expected) }
        self.entries = entries
        self.metadata = metadata
        self.dataOffset = dataOffset
    }

    /// The header's fields: the format requires an object from the first byte on, without a name that comes twice.
    private static func fields(_ json: [UInt8]) throws(SafetensorsError) -> [String: JSONValue] {
        guard json.first == UInt8(ascii: "{") else { throw .malformedHeader(reason: "it does not begin with '{'") }
        do {
            guard case .object(let fields) = try JSONValue(parsing: json) else { return [:] }
            return fields
        } catch {
            throw .malformedHeader(reason: "not a JSON object: \(error)")
        }
    }

    private static func metadata(_ value: JSONValue) throws(SafetensorsError) -> [String: String] {
        // Some writers write null if there is no metadata.
        if value == .null { return [:] }
        guard case .object(let fields) = value else {
            throw .malformedHeader(reason: "__metadata__ must map strings to strings")
        }
        var metadata: [String: String] = [:]
        for (name, value) in fields {
            guard case .string(let text) = value else {
                throw .malformedHeader(reason: "__metadata__ must map strings to strings")
            }
            metadata[name] = text
        }
        return metadata
    }

    private static func entry(
        name: String,
        value: JSONValue,
        dataOffset: Int
    ) throws(SafetensorsError) -> Entry {
        guard case .object(let fields) = value, case .string(let typeName)? = fields["dtype"],
            let shape = integers(fields["shape"]), let offsets = integers(fields["data_offsets"]), offsets.count == 2
        else { throw .malformedHeader(reason: "tensor '\(name)' needs dtype, shape and data_offsets") }
        guard let dataType = TensorDataType(rawValue: typeName) else {
            throw .unsupportedDataType(tensor: name, dataType: typeName)
        }
        var byteCount = dataType.byteCount
        for extent in shape {
            let (product, overflow) = byteCount.multipliedReportingOverflow(by: extent)
            guard extent != 0 else {
                throw .malformedHeader(reason: "tensor '\(name)' is empty, with an extent of 0: leave it out")
            }
            guard extent > 0, !overflow else {
                throw .malformedHeader(reason: "tensor '\(name)' has a negative extent or too many elements")
            }
            byteCount = product
        }
        let (begin, end) = (offsets[0], offsets[1])
        guard begin >= 0, end >= begin, end < Int.max - dataOffset, end - begin == byteCount else {
            throw .badOffsets(tensor: name)
        }
        return Entry(
            specification: TensorSpecification(name: name, shape: shape),
            dataType: dataType,
            fileRange: (dataOffset + begin)..<(dataOffset + end)
        )
    }

    private static func integers(_ value: JSONValue?) -> [Int]? {
        guard case .array(let items)? = value else { return nil }
        let integers = items.compactMap { if case .integer(let number) = $0 { number } else { Int?.none } }
        return integers.count == items.count ? integers : nil
    }
}
