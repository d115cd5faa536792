import Foundation

/// Writes the protocol's layout: integers big-endian, texts after a length of four bytes.
struct LayoutWriter {
    private(set) var bytes: [UInt8] = []

    mutating func put(_ raw: some Sequence<UInt8>) { bytes.append(contentsOf: raw) }

    mutating func put<Integer: FixedWidthInteger>(_ value: Integer) {
        withUnsafeBytes(of: value.bigEndian) { bytes.append(contentsOf: $0) }
    }

    mutating func put(_ value: Double) { put(value.bitPattern) }

    /// `LP(x)`: u32 length ‖ UTF-8.
    mutating func put(text: String) {
        put(UInt32(text.utf8.count))
        put(text.utf8)
    }

    /// `LP(x)` alone.
    static func text(_ text: String) -> [UInt8] {
        var writer = LayoutWriter()
        writer.put(text: text)
        return writer.bytes
    }
}

/// Reads the protocol's layout.
struct LayoutReader {
    private let bytes: [UInt8]
    private var place = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    var isAtEnd: Bool { place == bytes.count }

    mutating func raw(_ count: Int) throws(SecureAggregationError) -> [UInt8] {
        guard count >= 0, count <= bytes.count - place else {
            throw SecureAggregationError(.invalidDocument, "the document ends at byte \(bytes.count)")
        }
        defer { place += count }
        return Array(bytes[place..<place + count])
    }

    mutating func integer<Integer: FixedWidthInteger & UnsignedInteger>(
        _ type: Integer.Type = Integer.self
    ) throws(SecureAggregationError) -> Integer {
        try raw(MemoryLayout<Integer>.size).reduce(0) { $0 << 8 | Integer($1) }
    }

    mutating func double() throws(SecureAggregationError) -> Double { Double(bitPattern: try integer()) }

    mutating func text(upTo limit: Int) throws(SecureAggregationError) -> String {
        let count: UInt32 = try integer()
        guard count > 0, count <= limit, let text = String(validating: try raw(Int(count)), as: UTF8.self) else {
            throw SecureAggregationError(.invalidDocument, "a name has 1 to \(limit) bytes of UTF-8")
        }
        return text
    }
}
