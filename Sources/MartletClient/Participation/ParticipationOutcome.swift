/// What one attempt to take part came to.
public enum ParticipationOutcome: Sendable, Equatable {
    /// An update was accepted.
    case accepted(run: String, round: Int)
    /// There was no work; ask again after so many seconds.
    case noWork(reason: NoWorkReason, retrySeconds: Double)
    /// This client will never get work again: it was revoked.
    case finished
    /// The work could not be done or was no longer wanted; ``FederatedClient/lastReason`` says why in a sentence.
    case ended(EndingReason)

    /// An ending by the word of the protocol.
    package static func ended(code: String) -> Self { .ended(EndingReason(code: code)) }
}
