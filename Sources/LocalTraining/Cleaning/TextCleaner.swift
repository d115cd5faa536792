import Foundation

/// Cleans a device's texts before anything is learned from them: repairs, redacts, judges, and removes repetitions.
///
/// Deterministic and idempotent: clean records stay as they are. Rules do not find names and street addresses. Differential privacy
/// bounds what leaks of those, and cleaning does not.
public struct TextCleaner: Sendable {
    /// What the cleaner does.
    public let options: CleaningOptions

    /// Creates a cleaner.
    public init(_ options: CleaningOptions = .init()) {
        self.options = options
    }

    /// Cleans records given as bytes; those that are not UTF-8 are repaired or dropped.
    public func clean(bytes records: [[UInt8]]) -> CleaningResult {
        clean(records.map { String(decoding: $0, as: UTF8.self) })
    }

    /// Cleans records.
    ///
    /// - Complexity: O(characters); near duplicates are looked for among 50,000 records at a time.
    public func clean(_ records: [String]) -> CleaningResult {
        var result = CleaningResult()
        var pieces: [String] = []
        for record in records {
            guard let repaired = repair(record, &result.counts) else { continue }
            let redacted = options.redacts ? PersonalDataRedactor.redact(repaired, &result.counts) : repaired
            for piece in fit(redacted, &result.counts) where isGood(piece, &result.counts) { pieces.append(piece) }
        }
        result.records = options.removesDuplicates ? Self.withoutDuplicates(pieces, &result.counts) : pieces
        return result
    }

    // MARK: - Steps 1 to 4

    private func repair(_ record: String, _ counts: inout [CleaningRule: Int]) -> String? {
        let scalarCount = record.unicodeScalars.count
        let invalid = record.unicodeScalars.reduce(0) { $0 + ($1 == "\u{FFFD}" ? 1 : 0) }
        guard invalid * 100 <= scalarCount else {
            counts[.invalidEncoding, default: 0] += 1
            return nil
        }
        let normalized = Self.normalize(record)
        if !normalized.unicodeScalars.elementsEqual(record.unicodeScalars) { counts[.normalized, default: 0] += 1 }
        var visible = String.UnicodeScalarView()
        var removed = 0
        for scalar in normalized.unicodeScalars {
            if Self.separates(scalar) {
                removed += 1
                visible.append(" ")
            } else if Self.isRemoved(scalar) {
                removed += 1
            } else {
                visible.append(scalar)
            }
        }
        if removed > 0 { counts[.controlCharacters, default: 0] += removed }
        // Normalised again: a removed character may have separated a letter from its combining mark.
        let text = removed > 0 ? Self.normalize(String(visible)) : String(visible)
        let tidy = Self.tidied(text)
        if !tidy.unicodeScalars.elementsEqual(text.unicodeScalars) { counts[.whitespace, default: 0] += 1 }
        return tidy
    }

    private static func normalize(_ text: String) -> String {
        var result = String.UnicodeScalarView()
        for scalar in text.precomposedStringWithCanonicalMapping.unicodeScalars {
            switch scalar.value {
            case 0xFF10...0xFF19, 0xFF21...0xFF3A, 0xFF41...0xFF5A:
                result.append(Unicode.Scalar(scalar.value - 0xFEE0) ?? scalar)
            default: result.append(scalar)
            }
        }
        return String(result)
    }

    /// Whether a control separates words: NUL, form feed, C0's separators, next line, Unicode's line separators.
    private static func separates(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 0, 0x0B, 0x0C, 0x1C...0x1F, 0x85, 0x2028, 0x2029: true
        default: false
        }
    }

    private static func isRemoved(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 0x09, 0x0A, 0x0D: return false
        case 0...0x1F, 0x7F...0x9F, 0xAD, 0x200B, 0x2060, 0xFEFF, 0x202A...0x202E, 0x2066...0x2069: return true
        case 0xE000...0xF8FF, 0xF0000...0x10FFFF, 0xFDD0...0xFDEF: return true
        default: return scalar.value & 0xFFFE == 0xFFFE
        }
    }

    private static func tidied(_ text: String) -> String {
        var result: [Unicode.Scalar] = []
        var run = 0
        var scalars = text.unicodeScalars[...]
        while let next = scalars.popFirst() {
            var scalar = next
            if scalar == "\r" {
                if scalars.first == "\n" { continue }
                scalar = "\n"
            }
            if scalar == "\t" { scalar = " " }
            run = scalar == result.last ? run + 1 : 1
            let limit = scalar == " " ? 1 : scalar == "\n" ? 2 : ("0"..."9").contains(scalar) ? .max : 5
            if run <= limit { result.append(scalar) }
        }
        while let first = result.first, first.properties.isWhitespace { result.removeFirst() }
        while let last = result.last, last.properties.isWhitespace { result.removeLast() }
        var view = String.UnicodeScalarView()
        view.append(contentsOf: result)
        return String(view)
    }

    // MARK: - Step 6

    private func fit(_ text: String, _ counts: inout [CleaningRule: Int]) -> [String] {
        guard text.count >= options.minimumLength else {
            counts[.tooShort, default: 0] += 1
            return []
        }
        guard text.count > options.maximumLength else { return [text] }
        counts[.split, default: 0] += 1
        var pieces: [String] = []
        var rest = Array(text)[...]
        while rest.count > options.maximumLength {
            let window = rest[..<(rest.startIndex + options.maximumLength)]
            let end = window.lastIndex { ".!?。！？．\n".contains($0) } ?? window.lastIndex { $0.isWhitespace }
            let cut = end.map { $0 + 1 } ?? window.endIndex
            pieces.append(String(rest[..<cut]))
            rest = rest[cut...]
        }
        pieces.append(String(rest))
        return pieces.map(Self.tidied).filter { piece in
            if piece.count >= options.minimumLength { return true }
            counts[.tooShort, default: 0] += 1
            return false
        }
    }

    // MARK: - Steps 7 and 8

    private func isGood(_ text: String, _ counts: inout [CleaningRule: Int]) -> Bool {
        let profile = TextProfile(PersonalDataRedactor.withoutTokens(text))
        if let reason = profile.defect {
            counts[reason, default: 0] += 1
            return false
        }
        guard let wanted = options.language else { return true }
        let language = profile.language
        if language == wanted || (language == "und" && options.keepsUndetermined) { return true }
        counts[.language, default: 0] += 1
        return false
    }

    // MARK: - Steps 9 and 10

    private static func withoutDuplicates(_ records: [String], _ counts: inout [CleaningRule: Int]) -> [String] {
        var seen: Set<String> = []
        var unique: [String] = []
        for record in records {
            var key = String.UnicodeScalarView()
            for scalar in record.lowercased().unicodeScalars where TextProfile.isWordPart(scalar) { key.append(scalar) }
            // Records without letters and digits are compared as they are.
            if seen.insert(key.isEmpty ? record : String(key)).inserted {
                unique.append(record)
            } else {
                counts[.duplicate, default: 0] += 1
            }
        }
        var kept: [String] = []
        for start in stride(from: 0, to: unique.count, by: NearDuplicates.passLimit) {
            var index = NearDuplicates()
            for record in unique[start..<min(unique.count, start + NearDuplicates.passLimit)] {
                if index.insert(record) { kept.append(record) } else { counts[.nearDuplicate, default: 0] += 1 }
            }
        }
        return kept
    }
}
