/// A word of a closed set, as documents, tables and ledgers spell it.
///
/// It prints as it is spelled. A new word is a list of compiler errors: nothing that decides by such a word has a `default`.
public protocol ClosedWord: RawRepresentable, CaseIterable, Codable, Hashable, Sendable, CustomStringConvertible
where RawValue == String {}

extension ClosedWord {
    /// The word as it is spelled.
    public var description: String { rawValue }
}

/// A word that a peer has said: one of a set that this program knows, or another one, which a later version may have added.
package enum PeerWord<Word: ClosedWord>: Hashable, Sendable {
    case known(Word)
    case unknown(String)

    package init(_ text: String) { self = Word(rawValue: text).map(Self.known) ?? .unknown(text) }

    /// As it was spelled.
    package var text: String {
        switch self {
        case .known(let word): word.rawValue
        case .unknown(let text): text
        }
    }

    /// Whether it is this word; an unknown one is none.
    package func `is`(_ word: Word) -> Bool { self == .known(word) }
}

extension PeerWord: Codable, CustomStringConvertible {
    package var description: String { text }

    package init(from decoder: any Decoder) throws {
        self.init(try decoder.singleValueContainer().decode(String.self))
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(text)
    }
}
