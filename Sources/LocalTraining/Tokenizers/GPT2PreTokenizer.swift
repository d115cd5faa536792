/// GPT-2's division of text into pieces before byte pairs are merged.
///
/// Merges never cross a border of pieces.
///
/// It equals the expression `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`, whose alternatives are tried in
/// that order. Source: Radford et al. 2019, encoder.py.
enum GPT2PreTokenizer {
    private enum Class { case letter, number, space, other }

    /// The pieces as UTF-8 in order; joined they are the text.
    static func pieces(of text: some StringProtocol) -> [[UInt8]] { pieces(of: Array(text.unicodeScalars)) }

    static func pieces(of scalars: [Unicode.Scalar]) -> [[UInt8]] {
        let classes = scalars.map(classify)
        var pieces: [[UInt8]] = []
        var start = 0
        while start < scalars.count {
            let end = self.end(of: start, scalars, classes)
            var bytes: [UInt8] = []
            for scalar in scalars[start..<end] { bytes.append(contentsOf: UTF8.encode(scalar) ?? .init()) }
            pieces.append(bytes)
            start = end
        }
        return pieces
    }

    private static let contractions: [[Unicode.Scalar]] = [
        ["s"], ["t"], ["r", "e"], ["v", "e"], ["m"], ["l", "l"], ["d"],
    ]

    private static func end(of start: Int, _ scalars: [Unicode.Scalar], _ classes: [Class]) -> Int {
        if scalars[start] == "'" {
            for contraction in contractions where scalars[(start + 1)...].starts(with: contraction) {
                return start + 1 + contraction.count
            }
        }
        let first = scalars[start] == " " && start + 1 < scalars.count ? start + 1 : start
        if classes[first] != .space {
            var end = first + 1
            while end < scalars.count && classes[end] == classes[first] { end += 1 }
            return end
        }
        var end = start
        while end < scalars.count && classes[end] == .space { end += 1 }
        return end == scalars.count || end - start == 1 ? end : end - 1
    }

    private static func classify(_ scalar: Unicode.Scalar) -> Class {
        if scalar.isASCII {
            switch scalar.value {
            case 0x41...0x5A, 0x61...0x7A: return .letter
            case 0x30...0x39: return .number
            case 0x09...0x0D, 0x20: return .space
            default: return .other
            }
        }
        switch scalar.properties.generalCategory {
        case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter: return .letter
        case .decimalNumber, .letterNumber, .otherNumber: return .number
        default: return scalar.properties.isWhitespace ? .space : .other
        }
    }
}
