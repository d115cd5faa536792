import WireFormat

/// Lets work that ends again and again be asked for ever more seldom.
struct EndingPace {
    private var endedInARow = 0
    private var pauseSeconds = 0.0

    /// The pause before the next question, once.
    mutating func takePause() -> Double {
        defer { pauseSeconds = 0 }
        return pauseSeconds
    }

    /// Takes what an attempt came to.
    mutating func note(_ outcome: ParticipationOutcome, _ retry: RetryPolicy) {
        switch outcome {
        case .accepted: endedInARow = 0
        case .noWork, .finished: break
        case .ended(let reason):
            endedInARow += 1
            let limit = RefusalVerdict(code: reason.code) == .workIsOver ? min(10, retry.capSeconds) : retry.capSeconds
            let step = retry.baseSeconds * Double(1 << min(endedInARow, 16))
            pauseSeconds = min(limit, step) * (0.5 + 0.5 * retry.uniform())
        }
    }
}
