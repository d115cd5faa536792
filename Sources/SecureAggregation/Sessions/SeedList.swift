import Crypto
import Foundation

/// The list that asks for a sum: `pseudonym ‖ sealed` of each accepted update, sorted, and nothing else.
///
/// There are no weights: with weights 1 and 2ᵇ a sum modulo 2ᵇ is one client's update alone. There is no digest or size of the masked
/// update: the helper knows the mask, and could test guesses of the update against them.
package struct SeedList: Equatable, Sendable {
    package struct Entry: Equatable, Sendable {
        /// 32 random bytes, which a device draws once for each pair of helper key and domain.
        package var pseudonym: [UInt8]
        package var sealed: SealedSeed

        package init(pseudonym: [UInt8], sealed: SealedSeed) {
            self.pseudonym = pseudonym
            self.sealed = sealed
        }
    }

    package static let pseudonymByteCount = 32
    package static let entryByteCount = pseudonymByteCount + SealedSeed.byteCount

    package let entries: [Entry]

    /// Sorts the entries.
    ///
    /// - Throws: ``SecureAggregationError`` `duplicate_pseudonym`.
    package init(_ entries: [Entry]) throws(SecureAggregationError) {
        self.entries = entries.sorted { $0.pseudonym.lexicographicallyPrecedes($1.pseudonym) }
        try checkOrder()
    }

    /// Reads the body of a request.
    ///
    /// - Throws: ``SecureAggregationError`` for a wrong length or order, a repeated pseudonym, or a cohort outside the document's limits.
    package init(parsing bytes: [UInt8], of document: SessionDocument) throws(SecureAggregationError) {
        guard bytes.count.isMultiple(of: Self.entryByteCount) else {
            throw SecureAggregationError(
                .invalidList,
                "the list has entries of \(Self.entryByteCount) bytes and nothing else"
            )
        }
        let count = bytes.count / Self.entryByteCount
        guard count >= document.minimum else {
            throw SecureAggregationError(
                .cohortTooSmall,
                "the list has \(count) of at least \(document.minimum) entries"
            )
        }
        guard count <= document.maximum else {
            throw SecureAggregationError(
                .cohortTooLarge,
                "the list has \(count) of at most \(document.maximum) entries"
            )
        }
        var entries: [Entry] = []
        entries.reserveCapacity(count)
        for start in stride(from: 0, to: bytes.count, by: Self.entryByteCount) {
            let middle = start + Self.pseudonymByteCount
            entries.append(
                Entry(
                    pseudonym: Array(bytes[start..<middle]),
                    sealed: try SealedSeed(Array(bytes[middle..<start + Self.entryByteCount]))
                )
            )
        }
        self.entries = entries
        try checkOrder()
    }

    private func checkOrder() throws(SecureAggregationError) {
        for (index, (one, next)) in zip(entries, entries.dropFirst()).enumerated() {
            guard one.pseudonym != next.pseudonym else {
                throw SecureAggregationError(
                    .duplicatePseudonym,
                    "entries \(index) and \(index + 1) have the same pseudonym",
                    places: [index, index + 1]
                )
            }
            guard one.pseudonym.lexicographicallyPrecedes(next.pseudonym) else {
                throw SecureAggregationError(
                    .invalidList,
                    "the list is not sorted by pseudonym at entry \(index + 1)",
                    places: [index + 1]
                )
            }
        }
    }

    package var bytes: [UInt8] { entries.flatMap { $0.pseudonym + $0.sealed.bytes } }

    /// The request's name: SHA-256 of the list.
    package var digest: [UInt8] { Array(SHA256.hash(data: bytes)) }

    /// Opens every seed.
    ///
    /// - Throws: ``SecureAggregationError`` `seeds_unopened` with the places of all seeds that do not open.
    package func masks(with key: SessionKey, session: [UInt8]) throws(SecureAggregationError) -> [MaskStream] {
        var masks: [MaskStream] = []
        var unopened: [Int] = []
        for (index, entry) in entries.enumerated() {
            if var seed = key.open(entry.sealed, session: session, pseudonym: entry.pseudonym) {
                defer { seed.resetBytes(in: 0..<seed.count) }
                masks.append(try MaskStream(seed: seed))
            } else {
                unopened.append(index)
            }
        }
        guard unopened.isEmpty else {
            throw SecureAggregationError(
                .seedsUnopened,
                "\(unopened.count) seeds do not open with this session's key",
                places: unopened
            )
        }
        return masks
    }
}
