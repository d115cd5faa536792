import HTTPServing

/// Reading query parameters strictly: what is not understood is an error, not a default.
extension ServerRequest {
    /// Numbers in JSON are exact up to here.
    static let greatestNumber = (1 << 53) - 1

    /// A whole number inside a range; `fallback` where it is absent.
    func integer(_ name: String, default fallback: Int, in range: ClosedRange<Int>) throws(ParseFailure) -> Int {
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
    func choice(_ name: String, of allowed: [String]) throws(ParseFailure) -> String {
        guard let text = query[name] else { return allowed.first ?? "" }
        guard allowed.contains(text) else {
            throw ParseFailure(status: 400, detail: "\(name) must be one of \(allowed.joined(separator: ", "))")
        }
        return text
    }

    /// The `limit` and `cursor` of a list.
    func page(limit fallback: Int = 1000) throws(ParseFailure) -> (limit: Int, cursor: Int?) {
        let limit = try integer("limit", default: fallback, in: 1...10_000)
        guard query["cursor"] != nil else { return (limit, nil) }
        return (limit, try integer("cursor", default: 0, in: 0...999_999_999_999_999))
    }
}
