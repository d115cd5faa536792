/// A path on the server that was asked, with or without a query: what a server may name for a client to go to.
///
/// It begins with one `/` and can neither name another host nor climb: no authority (`//`), no segment `.` or `..`, no slash
/// in the query, no backslash, fragment, control character or coded slash, also where they are written with `%`. Whatever it is joined to
/// keeps its scheme, host and port.
package struct ServerPath: CheckedText {
    package let text: String
    package static let rule = "must be a path on this server, such as /v1/runs/r/models/1/weights"
    /// Bytes of a path, at most.
    package static let byteLimit = 2000

    package init?(_ text: String) {
        let bytes = Array(text.utf8)
        guard bytes.first == UInt8(ascii: "/"), bytes.count <= Self.byteLimit,
            bytes.allSatisfy({ $0.isLetterOrDigit || Self.others.contains($0) }), let decoded = Self.decoded(bytes)
        else { return nil }
        let query = decoded.firstIndex { $0.isQuestionMark } ?? decoded.count
        let segments = decoded[1..<query].split(separator: .slash, omittingEmptySubsequences: false)
        // Proxies do not agree either whether a slash in a query divides.
        guard !decoded[query...].contains(.slash) else { return nil }
        // An empty segment is the beginning of an authority, or means what proxies do not agree upon; "/" itself is allowed.
        guard segments.count == 1 || !segments.dropLast().contains(where: \.isEmpty),
            !segments.contains(where: { $0 == [.dot] || $0 == [.dot, .dot] })
        else { return nil }
        self.text = text
    }

    private init(known text: String) { self.text = text }

    /// The same path without its query.
    package var withoutQuery: ServerPath {
        text.firstIndex(of: "?").map { ServerPath(known: String(text[..<$0])) } ?? self
    }

    // MARK: - Reading

    /// Beside letters and digits: what RFC 3986 allows in paths and queries.
    private static let others = Set("-._~!$&'()*+,;=:@/?%".utf8)

    /// One character of the path; what was written with `%` is never a divider.
    private enum Unit: Equatable {
        case plain(UInt8)
        case coded(UInt8)

        static let slash = Unit.plain(UInt8(ascii: "/"))
        static let dot = Unit.plain(UInt8(ascii: "."))
        var isQuestionMark: Bool { self == .plain(UInt8(ascii: "?")) }
    }

    /// Reads `%XX`; `nil` where it is malformed, or stands for a slash, a backslash, a dot, a percent sign or a control character.
    private static func decoded(_ bytes: [UInt8]) -> [Unit]? {
        var units: [Unit] = []
        var position = 0
        while position < bytes.count {
            guard bytes[position] == UInt8(ascii: "%") else {
                units.append(.plain(bytes[position]))
                position += 1
                continue
            }
            guard position + 2 < bytes.count, let high = digit(bytes[position + 1]),
                let low = digit(bytes[position + 2])
            else { return nil }
            let byte = high << 4 | low
            // A coded dot is one to whoever decodes, and what a coded percent sign comes to depends on how often that happens.
            let isRefused = ["/", "\\", ".", "%"].contains(Character(Unicode.Scalar(byte)))
            guard byte >= 0x20, byte != 0x7F, !isRefused else { return nil }
            units.append(.coded(byte))
            position += 3
        }
        return units
    }

    private static func digit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case 48...57: byte - 48
        case 65...70: byte - 55
        case 97...102: byte - 87
        default: nil
        }
    }
}
