/// Tokens that are found in text before anything else.
///
/// They are found by code points, so that a combining mark behind a token does not hide it, nor a joiner the emoji before it. At one
/// place the longest token wins. Tokens that are not normalised are found first, in the whole text, as in Hugging Face's
/// `AddedVocabulary`.
struct AddedTokens: Sendable {
    private struct Entry: Sendable {
        var scalars: [Unicode.Scalar]
        var id: Int
    }

    /// The tokens by their first scalar, the longest first.
    private typealias Index = [Unicode.Scalar: [Entry]]

    private var passes: [Index] = []

    init(_ tokens: [ByteLevelBPE.AddedToken]) {
        for isNormalized in [false, true] {
            var index: Index = [:]
            for token in tokens where token.isNormalized == isNormalized {
                let scalars = Array(token.content.unicodeScalars)
                guard let first = scalars.first else { continue }
                index[first, default: []].append(Entry(scalars: scalars, id: token.id))
            }
            guard !index.isEmpty else { continue }
            passes.append(index.mapValues { $0.sorted { $0.scalars.count > $1.scalars.count } })
        }
    }

    enum Piece {
        case text(ArraySlice<Unicode.Scalar>)
        case token(Int)
    }

    /// The pieces of a text in order: added tokens, and the text between them.
    func pieces(of text: some StringProtocol) -> [Piece] {
        passes.reduce([.text(Array(text.unicodeScalars)[...])]) { pieces, index in
            pieces.flatMap { piece in
                if case .text(let scalars) = piece { Self.split(scalars, by: index) } else { [piece] }
            }
        }.filter { if case .text(let scalars) = $0 { !scalars.isEmpty } else { true } }
    }

    private static func split(_ text: ArraySlice<Unicode.Scalar>, by index: Index) -> [Piece] {
        var pieces: [Piece] = []
        var start = text.startIndex
        var place = start
        while place < text.endIndex {
            guard let entries = index[text[place]],
                let found = entries.first(where: { text[place...].starts(with: $0.scalars) })
            else {
                place += 1
                continue
            }
            pieces.append(.text(text[start..<place]))
            pieces.append(.token(found.id))
            place += found.scalars.count
            start = place
        }
        pieces.append(.text(text[start...]))
        return pieces
    }
}
