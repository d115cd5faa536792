/// The media types that a peer accepts: the `Accept` field, RFC 9110 section 12.5.1.
package struct AcceptField: Sendable {
    private struct MediaRange: Sendable {
        var type: Substring
        var subtype: Substring
        var quality: Double

        /// 2 for a type by its name, 1 for `type/*`, 0 for `*/*`; `nil` if the range does not cover the type.
        func specificity(for type: Substring, _ subtype: Substring) -> Int? {
            if self.type == "*" { return 0 }
            guard self.type == type else { return nil }
            return self.subtype == "*" ? 1 : self.subtype == subtype ? 2 : nil
        }
    }

    private let ranges: [MediaRange]

    /// Reads the field; without a field, or without any well-formed member, everything is accepted.
    package init(_ field: String?) {
        ranges = (field ?? "").lowercased().split(separator: ",").compactMap(Self.range)
    }

    private static func range(_ member: Substring) -> MediaRange? {
        let parts = member.split(separator: ";", omittingEmptySubsequences: false).map { trimmed($0) }
        let names = parts[0].split(separator: "/", omittingEmptySubsequences: false)
        guard names.count == 2, names.allSatisfy({ !$0.isEmpty && !$0.contains(" ") }),
            names[0] != "*" || names[1] == "*"
        else { return nil }
        var quality = 1.0
        if let weight = parts.dropFirst().first(where: { $0.hasPrefix("q=") }) {
            guard let value = Double(weight.dropFirst(2)), (0...1).contains(value) else { return nil }
            quality = value
        }
        return MediaRange(type: names[0], subtype: names[1], quality: quality)
    }

    private static func trimmed(_ text: Substring) -> Substring {
        let start = text.drop { $0 == " " || $0 == "\t" }
        guard let last = start.lastIndex(where: { $0 != " " && $0 != "\t" }) else { return "" }
        return start[...last]
    }

    /// The quality of a type, 0 for a type that is not accepted, and the specificity of the range that gives it.
    private func preference(for mediaType: String) -> (quality: Double, specificity: Int) {
        guard !ranges.isEmpty else { return (1, 0) }
        let essence = mediaType.lowercased().prefix { $0 != ";" && $0 != " " }
        guard let slash = essence.firstIndex(of: "/") else { return (0, 0) }
        var best = (quality: 0.0, specificity: -1)
        for range in ranges {
            guard
                let specificity = range.specificity(
                    for: essence[..<slash],
                    essence[essence.index(after: slash)...]
                ), specificity > best.specificity
            else { continue }
            best = (range.quality, specificity)
        }
        return best
    }

    /// Whether the peer accepts a type; the type's parameters are ignored.
    package func takes(_ mediaType: String) -> Bool { preference(for: mediaType).quality > 0 }

    /// The accepted type of highest quality; among equals the one that the field names most exactly, then the first of the list.
    ///
    /// - Returns: `nil` if the peer accepts none.
    package func best(of mediaTypes: [String]) -> String? {
        var best: (type: String?, quality: Double, specificity: Int) = (nil, 0, 0)
        for type in mediaTypes {
            let (quality, specificity) = preference(for: type)
            if quality > 0, (quality, specificity) > (best.quality, best.type == nil ? -1 : best.specificity) {
                best = (type, quality, specificity)
            }
        }
        return best.type
    }
}
