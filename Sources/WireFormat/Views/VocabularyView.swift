/// Words that an analytics run has found, with their counts where it counts.
package struct VocabularyView: Codable, Equatable, Sendable {
    package struct Item: Codable, Equatable, Sendable {
        package var word: String
        /// Clients that hold the word, noised where the run is private; `null` for words found by votes, which publish no counts.
        package var count: Double?

        package init(word: String, count: Double? = nil) {
            self.word = word
            self.count = count
        }
    }
    package var run: String
    package var version: Int
    package var method: AnalyticsMethod
    /// Standard deviation of the noise on a count; 0 without privacy, `null` for votes.
    package var countError: Double?
    /// Words with a lower count are not shown.
    package var minimumCount: Double?
    /// The noised count that each word had at least (votes); votes that it had at least (TrieHH of earlier versions).
    package var threshold: Double?
    /// Candidates that are not shown, because their counts are too low.
    package var hidden: Int
    /// Prefixes that go on where the run ended (votes).
    package var unfinished: [String]
    /// Most frequent first; of votes by code point.
    package var items: [Item]
    package var nextCursor: String?

    package init(
        run: String,
        version: Int,
        method: AnalyticsMethod,
        countError: Double? = nil,
        minimumCount: Double? = nil,
        threshold: Double? = nil,
        hidden: Int,
        unfinished: [String],
        items: [Item],
        nextCursor: String? = nil
    ) {
        self.run = run
        self.version = version
        self.method = method
        self.countError = countError
        self.minimumCount = minimumCount
        self.threshold = threshold
        self.hidden = hidden
        self.unfinished = unfinished
        self.items = items
        self.nextCursor = nextCursor
    }
}
