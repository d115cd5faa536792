import StrictJSON

/// A masked update as it is uploaded: `pseudonym ‖ sealed ‖ safetensors`, of one length for every device of a session.
///
/// Its first 1,200 bytes are the device's entry of the ``SeedList``. The safetensors part has one tensor, `masked`, and no metadata.
package struct MaskedUpdateFile: Equatable, Sendable {
    /// The `Content-Type` of the upload.
    package static let mediaType = "application/vnd.martlet.masked-update"
    package static let tensorName = "masked"

    package let width: RingWidth
    /// d.
    package let coordinateCount: Int

    /// The file of sums with so many coordinates.
    ///
    /// - Throws: ``SecureAggregationError`` `out_of_range` for a file whose size no integer holds.
    package init(width: RingWidth, coordinateCount: Int) throws(SecureAggregationError) {
        guard coordinateCount > 0, coordinateCount <= 1 << 40 else {
            throw SecureAggregationError(.outOfRange, "a masked update has 1 to 2⁴⁰ coordinates")
        }
        self.width = width
        self.coordinateCount = coordinateCount
    }

    /// The file that a document asks for.
    package init(of document: SessionDocument) throws(SecureAggregationError) {
        try self.init(width: document.width, coordinateCount: Int(clamping: document.coordinateCount))
    }

    /// Bytes of the words alone, d · b / 8.
    package var wordByteCount: Int { coordinateCount * width.byteCount }

    /// Where the words begin.
    package var wordOffset: Int { SeedList.entryByteCount + header.count }

    /// Bytes of the whole file.
    package var byteCount: Int { wordOffset + wordByteCount }

    /// The safetensors header with its eight bytes of length: the same bytes in every file, filled up by spaces to a multiple of 8.
    package var header: [UInt8] {
        let tensor = JSONText.object([
            ("dtype", JSONText.quoted("U\(width.rawValue)")), ("shape", JSONText.array(["\(coordinateCount)"])),
            ("data_offsets", JSONText.array(["0", "\(wordByteCount)"])),
        ])
        var json = Array(JSONText.object([(Self.tensorName, tensor)]).utf8)
        while !json.count.isMultiple(of: 8) { json.append(UInt8(ascii: " ")) }
        return withUnsafeBytes(of: UInt64(json.count).littleEndian, Array.init) + json
    }

    /// The whole file.
    ///
    /// - Parameters:
    ///   - entry: The device's pseudonym and sealed seed.
    ///   - words: The masked words of ``Masking/mask(_:as:with:)``.
    /// - Returns: The bytes to upload.
    /// - Throws: ``SecureAggregationError`` `invalid_words` for another number of bytes.
    package func bytes(_ entry: SeedList.Entry, words: [UInt8]) throws(SecureAggregationError) -> [UInt8] {
        guard words.count == wordByteCount else {
            throw SecureAggregationError(
                .invalidWords,
                "\(coordinateCount) coordinates take \(wordByteCount) bytes, and there are \(words.count)"
            )
        }
        return prefix(entry) + words
    }

    /// All that comes before the words, so that a file can be written in pieces.
    package func prefix(_ entry: SeedList.Entry) -> [UInt8] { entry.pseudonym + entry.sealed.bytes + header }

    /// Reads what comes before the words.
    ///
    /// - Parameters:
    ///   - prefix: The first ``wordOffset`` bytes of the file.
    ///   - fileByteCount: The size of the whole file.
    /// - Returns: The device's entry of the list.
    /// - Throws: ``SecureAggregationError`` `invalid_words` for a file of another length or header.
    package func entry(prefix: [UInt8], fileByteCount: Int) throws(SecureAggregationError) -> SeedList.Entry {
        guard fileByteCount == byteCount, prefix.count == wordOffset else {
            throw SecureAggregationError(
                .invalidWords,
                "a masked update of this session has \(byteCount) bytes, and this one has \(fileByteCount)"
            )
        }
        guard prefix.dropFirst(SeedList.entryByteCount).elementsEqual(header) else {
            throw SecureAggregationError(
                .invalidWords,
                "the file holds one tensor '\(Self.tensorName)' of U\(width.rawValue) with the shape [\(coordinateCount)], "
                    + "behind pseudonym and seed"
            )
        }
        return SeedList.Entry(
            pseudonym: Array(prefix.prefix(SeedList.pseudonymByteCount)),
            sealed: try SealedSeed(Array(prefix[SeedList.pseudonymByteCount..<SeedList.entryByteCount]))
        )
    }
}
