import Foundation
package import WireFormat

/// What a round is judged by; taken from the specification once.
package struct RoundTerms: Equatable, Sendable {
    package var policy: CohortPolicy
    package var goal: Int
    package var minimum: Int
    /// Assignments handed out, at most at the same time.
    package var wanted: Int
    package var selectionTimeoutS: Double
    package var reportTimeoutS: Double
    /// Whether updates of older versions count, and assignments outlive the round.
    package var isBuffered: Bool
    package var retryBackoffS: Double
    /// Whether nothing may tell who was drawn: the round then lasts until its deadline whoever has reported.
    package var isSecret: Bool

    package init(_ specification: RunSpecification, isEvaluation: Bool = false) {
        let cohort = specification.cohort
        isBuffered = specification.aggregation.isBuffered && !isEvaluation
        policy = isEvaluation || isBuffered ? .firstCome : cohort.policy
        goal = isEvaluation ? specification.evaluation.cohortGoal : cohort.goal
        minimum = isEvaluation ? specification.evaluation.minimum : cohort.minimum
        wanted =
            isBuffered
            ? specification.aggregation.buffered?.concurrency ?? goal
            : Int((Double(goal) * cohort.overSelection).rounded(.up))
        selectionTimeoutS = cohort.selectionTimeoutS
        reportTimeoutS = isEvaluation ? specification.evaluation.reportTimeoutS : cohort.reportTimeoutS
        retryBackoffS = cohort.retryBackoffS
        isSecret = specification.privacy.hasSecretDraw && !isEvaluation
    }

    /// Seconds between the end of an abandoned attempt and the next one.
    package func backoff(afterAttempt attempt: Int) -> Double {
        min(900, retryBackoffS * pow(2, Double(min(attempt - 1, 30))))
    }
}
