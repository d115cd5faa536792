/// How far one update stood out, as it is shown.
package struct UpdateScoreView: Codable, Equatable, Sendable {
    package var run: String
    package var round: Int
    package var attempt: Int
    package var assignment: String
    package var client: String
    package var numExamples: Int
    package var norm: Double
    package var normRatio: Double
    package var cosine: Double?
    package var counted: Bool
    package var reason: String?

    package init(
        run: String,
        round: Int,
        attempt: Int,
        assignment: String,
        client: String,
        numExamples: Int,
        norm: Double,
        normRatio: Double,
        cosine: Double?,
        counted: Bool,
        reason: String?
    ) {
        self.run = run
        self.round = round
        self.attempt = attempt
        self.assignment = assignment
        self.client = client
        self.numExamples = numExamples
        self.norm = norm
        self.normRatio = normRatio
        self.cosine = cosine
        self.counted = counted
        self.reason = reason
    }
}
