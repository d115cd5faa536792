import Foundation

/// How failed requests are repeated: exponential backoff with full jitter, at least `Retry-After`.
public struct RetryPolicy: Sendable {
    /// Tries of one request, the first included.
    public var attemptLimit: Int
    /// The backoff's unit, in seconds; the n-th wait is uniform up to `base · 2ⁿ`.
    public var baseSeconds: Double
    /// No wait is longer, in seconds, whatever the server says.
    public var capSeconds: Double
    /// Waits so many seconds.
    public var sleep: @Sendable (Double) async throws -> Void
    /// Draws from `0..<1`.
    public var uniform: @Sendable () -> Double

    /// The default policy, with the real clock.
    public init(
        attemptLimit: Int = 8,
        baseSeconds: Double = 0.5,
        capSeconds: Double = 300,
        sleep: @escaping @Sendable (Double) async throws -> Void = { try await Task.sleep(for: .seconds($0)) },
        uniform: @escaping @Sendable () -> Double = { Double.random(in: 0..<1) }
    ) {
        self.attemptLimit = attemptLimit
        self.baseSeconds = baseSeconds
        self.capSeconds = capSeconds
        self.sleep = sleep
        self.uniform = uniform
    }

    /// Sends until there is an answer that is not temporary, or the tries are used up.
    ///
    /// - Returns: The last answer.
    /// - Throws: ``ClientError`` of the last try; cancellation.
    public func send(_ request: TransportRequest, over transport: any Transport) async throws -> TransportResponse {
        var attempts = attempts()
        while true {
            do {
                let response = try await transport.send(request)
                guard isTemporary(response), try await attempts.next(after: response) else { return response }
            } catch let error as ClientError where error.isTemporary {
                guard try await attempts.next(after: nil) else { throw error }
            }
        }
    }

    /// The tries of one piece of work.
    struct Attempts {
        fileprivate let policy: RetryPolicy
        private var failed = 0

        fileprivate init(_ policy: RetryPolicy) { self.policy = policy }

        /// Waits before the next try.
        ///
        /// - Parameter response: The answer of the last one, if there was any.
        /// - Returns: Whether there is a next try.
        /// - Throws: Cancellation.
        mutating func next(after response: TransportResponse?) async throws -> Bool {
            failed += 1
            guard failed < policy.attemptLimit else { return false }
            let retryAfter = response?.headers["retry-after"].flatMap(Double.init) ?? 0
            let backoff = policy.baseSeconds * Double(1 << min(failed, 16)) * policy.uniform()
            try await policy.sleep(min(policy.capSeconds, max(backoff, retryAfter)))
            return true
        }
    }

    /// Counts the tries of one piece of work.
    func attempts() -> Attempts { Attempts(self) }

    /// Whether the same request may be answered better later.
    func isTemporary(_ response: TransportResponse) -> Bool { Self.isTemporary(response.status) }

    static func isTemporary(_ status: Int) -> Bool { [408, 429].contains(status) || status >= 500 }
}
