/// How a run of kind `analytics` finds words.
package enum AnalyticsMethod: String, ClosedWord {
    /// How many clients hold each word of a list.
    case histogram
    /// Which words many clients hold, letter by letter.
    case votes
    /// The same in runs of earlier versions, by a mechanism that is offered no more.
    case triehh
}

/// What counts as one word of a text.
package enum CountedUnit: String, ClosedWord {
    case word, character, record
}
