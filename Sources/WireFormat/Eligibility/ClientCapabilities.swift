import StrictJSON

/// What a device says that it is; runs choose by it.
package struct ClientCapabilities: Codable, Equatable, Sendable {
    package var memoryBytes: Int?
    package var cpuCount: Int?
    package var accelerator: String?
    /// Dotted numbers, such as `1.4.2`.
    package var runtimeVersion: String?
    package var network: String?

    package init(
        memoryBytes: Int? = nil,
        cpuCount: Int? = nil,
        accelerator: String? = nil,
        runtimeVersion: String? = nil,
        network: String? = nil
    ) {
        self.memoryBytes = memoryBytes
        self.cpuCount = cpuCount
        self.accelerator = accelerator
        self.runtimeVersion = runtimeVersion
        self.network = network
    }

    init(reading fields: FieldReader) {
        memoryBytes = fields.optionalInteger("memory_bytes", in: 0...Int(Int32.max) * 1_000_000)
        cpuCount = fields.optionalInteger("cpu_count", in: 0...1_000_000)
        accelerator = fields.optionalString("accelerator")
        runtimeVersion = fields.optionalString("runtime_version")
        network = fields.optionalString("network")
    }

    /// Reads an optional object of capabilities.
    static func read(_ name: String, in fields: FieldReader) -> ClientCapabilities? {
        let isThere = fields.has(name)
        let value = fields.object(name) { ClientCapabilities(reading: $0) }
        return isThere ? value : nil
    }
}

/// Dotted numbers compared part by part: `1.10` is later than `1.9`, and `1.2` is `1.2.0`.
package struct DottedVersion: Comparable, Sendable {
    private let parts: [Int]

    /// `nil` when the text is not one to eight numbers with dots between them.
    package init?(_ text: String) {
        let pieces = text.split(separator: ".", omittingEmptySubsequences: false)
        let numbers = pieces.compactMap { piece in
            piece.count <= 9 && piece.allSatisfy(\.isASCII) && piece.allSatisfy(\.isNumber) ? Int(piece) : nil
        }
        guard (1...8).contains(pieces.count), numbers.count == pieces.count else { return nil }
        parts = numbers
    }

    package static func < (left: Self, right: Self) -> Bool {
        for index in 0..<max(left.parts.count, right.parts.count) {
            let (a, b) = (left.part(index), right.part(index))
            if a != b { return a < b }
        }
        return false
    }

    package static func == (left: Self, right: Self) -> Bool { !(left < right) && !(right < left) }

    private func part(_ index: Int) -> Int { index < parts.count ? parts[index] : 0 }
}
