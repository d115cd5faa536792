/// Why a message of the protocol is refused; the API answers with `code`.
package struct SecureAggregationError: Error, Equatable, Sendable, CustomStringConvertible {
    package enum Code: String, Sendable {
        case invalidDocument = "invalid_document"
        case invalidGrant = "grant_invalid"
        case invalidList = "invalid_list"
        case invalidWords = "invalid_words"
        case duplicatePseudonym = "duplicate_pseudonym"
        case cohortTooSmall = "cohort_too_small"
        case cohortTooLarge = "cohort_too_large"
        case seedsUnopened = "seeds_unopened"
        case participationCap = "participation_cap"
        case noiseUnknown = "noise_unknown"
        case outOfRange = "out_of_range"
        case randomSourceFailed = "random_source_failed"
    }

    package var code: Code
    package var description: String
    /// The list entries that the error is about, counted from 0.
    package var places: [Int]

    package init(_ code: Code, _ description: String, places: [Int] = []) {
        self.code = code
        self.description = description
        self.places = places
    }
}
