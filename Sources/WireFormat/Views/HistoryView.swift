/// A change of a round, or of one assignment in it.
package struct HistoryView: Codable, Equatable, Sendable {
    package var attempt: Int
    package var at: String
    package var state: String
    package var cause: String
    /// `nil` for a change of the round itself.
    package var assignment: String?

    package init(attempt: Int, at: String, state: String, cause: String, assignment: String? = nil) {
        self.attempt = attempt
        self.at = at
        self.state = state
        self.cause = cause
        self.assignment = assignment
    }
}
