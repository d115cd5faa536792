import Foundation
import MartletTransport

/// When ``FederatedClient/run(_:report:)`` ends by itself.
public struct ParticipationOptions: Sendable {
    /// Ends when the server has no work, and with the first error.
    public var stopsWithoutWork: Bool
    /// Ends with an error when nobody has answered for so many seconds; `nil` waits for ever.
    public var giveUpAfterSeconds: Double?

    /// By default only cancellation, a refusal for good and a damaged state end it.
    public init(stopsWithoutWork: Bool = false, giveUpAfterSeconds: Double? = nil) {
        self.stopsWithoutWork = stopsWithoutWork
        self.giveUpAfterSeconds = giveUpAfterSeconds
    }
}

extension FederatedClient {
    /// Takes part until the task is cancelled or the client may never take part again.
    ///
    /// A server that is away, a proxy that answers in its place, a name that cannot be resolved, and a full disk are waited out.
    ///
    /// - Parameters:
    ///   - options: When to end earlier.
    ///   - report: Receives each outcome, with a sentence where there is one.
    /// - Throws: `ClientError` when the server refuses the client for good, when this device's state cannot be used, with code
    ///   `already_running` beside another attempt with the same state, or by the options. Not when the task is cancelled: it returns then, and unfinished work goes on the next time.
    public func run(
        _ options: ParticipationOptions = .init(),
        report: @Sendable (ParticipationOutcome, _ reason: String?) async -> Void = { _, _ in }
    ) async throws {
        try beginAttempts()
        defer { device.state.lock.end() }
        device.session.retry.watch?.limit = options.giveUpAfterSeconds
        var failures = 0
        while !Task.isCancelled {
            do {
                let outcome = try await participate(waitSeconds: options.stopsWithoutWork ? 0 : 30)
                failures = 0
                switch outcome {
                case .accepted: await report(outcome, nil)
                case .ended: await report(outcome, lastReason)
                case .finished:
                    await report(outcome, lastReason)
                    return
                case .noWork(_, let seconds):
                    await report(outcome, nil)
                    if options.stopsWithoutWork { return }
                    try await device.session.retry.sleep(seconds)
                }
            } catch is CancellationError {
                return
            } catch {
                let error = error as? ClientError ?? ClientError(unexpected: error)
                guard !error.endsClient, !options.stopsWithoutWork else { throw error }
                // What the requests have told already is told once.
                device.session.retry.watch?.failed(error)
                failures += 1
                let wait = Swift.max(1, device.session.retry.backoff(failures + 3))
                if device.session.retry.watch?.isTooLong(after: wait) == true { throw error }
                do { try await device.session.retry.sleep(wait) } catch { return }
            }
        }
    }
}
