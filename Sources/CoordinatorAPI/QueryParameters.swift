package import HTTPServing

/// Reading query parameters strictly: what is not understood is an error, not a default.
extension ServerRequest {
    /// Numbers in JSON are exact up to here.
    package static let greatestNumber = (1 << 53) - 1

    /// A whole number inside a range; `fallback` where it is absent.
    package func integer(_ name: String, default fallback: Int, in range: ClosedRange<Int>) throws(ParseFailure) -> Int
    {
        guard let text = query[name] else { return fallback }
        guard let number = Int(text), range.contains(number) else {
            throw ParseFailure(
                status: 400,
                detail: "\(name) must be a whole number from \(range.lowerBound) to \(range.upperBound)"
            )
        }
        return number
    }

    /// One of a closed set of words; the first where it is absent.
    package func choice<Word: RawRepresentable & CaseIterable>(
        _ name: String,
        default fallback: Word
    ) throws(ParseFailure) -> Word where Word.RawValue == String {
        try choice(name, among: Array(Word.allCases), default: fallback)
    }

    /// One of some words of a closed set.
    package func choice<Word: RawRepresentable>(
        _ name: String,
        among allowed: [Word],
        default fallback: Word
    ) throws(ParseFailure) -> Word where Word.RawValue == String {
        guard let text = query[name] else { return fallback }
        guard let word = allowed.first(where: { $0.rawValue == text }) else {
            let words = allowed.map(\.rawValue).joined(separator: ", ")
            throw ParseFailure(status: 400, detail: "\(name) must be one of \(words)")
        }
        return word
    }

    /// A parameter that is `true` or `false`; absent: `false`.
    func flag(_ name: String) throws(ParseFailure) -> Bool {
        guard let text = query[name] else { return false }
        guard let value = Bool(text) else { throw ParseFailure(status: 400, detail: "\(name) must be true or false") }
        return value
    }

    /// The `limit` and `cursor` of a list.
    package func page(limit fallback: Int = 1000) throws(ParseFailure) -> (limit: Int, cursor: Int?) {
        let limit = try integer("limit", default: fallback, in: 1...10_000)
        guard query["cursor"] != nil else { return (limit, nil) }
        return (limit, try integer("cursor", default: 0, in: 0...999_999_999_999_999))
    }
}
