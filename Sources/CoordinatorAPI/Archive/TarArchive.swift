/// The pieces of a tar file in the POSIX `ustar` format, so that an archive can be sent without holding it.
enum TarArchive {
    static let blockByteCount = 512

    /// The header block of a regular file.
    ///
    /// - Parameters:
    ///   - name: At most 100 bytes, directories included.
    ///   - byteCount: Under 8 GiB, the format's limit.
    ///   - modified: Seconds since 1970.
    /// - Returns: One block of 512 bytes.
    static func header(name: String, byteCount: Int, modified: Int) -> [UInt8] {
        precondition(name.utf8.count <= 100 && byteCount >= 0 && byteCount < 1 << 33, "does not fit a tar header")
        var block = [UInt8](repeating: 0, count: blockByteCount)
        func put(_ text: String, at offset: Int) {
            for (index, byte) in text.utf8.enumerated() { block[offset + index] = byte }
        }
        put(name, at: 0)
        put(octal(0o644, digits: 7), at: 100)
        put(octal(0, digits: 7), at: 108)
        put(octal(0, digits: 7), at: 116)
        put(octal(byteCount, digits: 11), at: 124)
        put(octal(max(0, modified), digits: 11), at: 136)
        put("        ", at: 148)
        put("0", at: 156)
        put("ustar", at: 257)
        put("00", at: 263)
        put("martlet", at: 265)
        put("martlet", at: 297)
        // The sum is taken with its own field blank, and stands there with a NUL and a space behind it.
        put(octal(block.reduce(0) { $0 + Int($1) }, digits: 6) + "\0 ", at: 148)
        return block
    }

    /// What fills a file's last block.
    static func padding(after byteCount: Int) -> [UInt8] {
        [UInt8](repeating: 0, count: (blockByteCount - byteCount % blockByteCount) % blockByteCount)
    }

    /// What ends an archive.
    static let end = [UInt8](repeating: 0, count: 2 * blockByteCount)

    private static func octal(_ value: Int, digits: Int) -> String {
        let text = String(value, radix: 8)
        return String(repeating: "0", count: max(0, digits - text.count)) + text
    }
}
