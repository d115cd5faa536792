extension Sequence<UInt8> {
    /// The bytes as lower-case hexadecimal digits.
    ///
    /// Without a string for each byte, because a start hashes every row of the ledger.
    package var hexadecimal: String {
        var digits: [UInt8] = []
        digits.reserveCapacity(2 * underestimatedCount)
        for byte in self {
            for half in [byte >> 4, byte & 15] { digits.append(half < 10 ? 48 + half : 87 + half) }
        }
        return String(decoding: digits, as: UTF8.self)
    }
}
