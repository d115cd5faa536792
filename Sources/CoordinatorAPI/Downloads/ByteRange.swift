/// A `Range` field of one byte range; anything else is answered whole, as RFC 9110 section 14.2 allows.
package enum ByteRange: Equatable {
    case whole, unsatisfiable
    case part(Range<Int>)

    package static func parse(_ field: String, byteCount: Int) -> ByteRange {
        guard field.hasPrefix("bytes="), !field.contains(",") else { return .whole }
        let sides = field.dropFirst(6).split(separator: "-", omittingEmptySubsequences: false)
        guard sides.count == 2, sides.allSatisfy({ $0.utf8.allSatisfy { (48...57).contains($0) } && $0.count < 19 })
        else {
            return .whole
        }
        switch (Int(sides[0]), Int(sides[1])) {
        case (let first?, let last?):
            guard first <= last else { return .whole }
            return first < byteCount ? .part(first..<(min(last, byteCount - 1) + 1)) : .unsatisfiable
        case (let first?, nil): return first < byteCount ? .part(first..<byteCount) : .unsatisfiable
        case (nil, let suffix?): return suffix > 0 ? .part(max(0, byteCount - suffix)..<byteCount) : .unsatisfiable
        case (nil, nil): return .whole
        }
    }
}
