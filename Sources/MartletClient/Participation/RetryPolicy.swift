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
        var attempt = 0
        while true {
            attempt += 1
            var retryAfter = 0.0
            do {
                let response = try await transport.send(request)
                let temporary = [408, 429].contains(response.status) || response.status >= 500
                if !temporary || attempt >= attemptLimit { return response }
                retryAfter = response.headers["retry-after"].flatMap(Double.init) ?? 0
            } catch let error as ClientError {
                if !error.isTemporary || attempt >= attemptLimit { throw error }
            }
            let backoff = baseSeconds * Double(1 << min(attempt, 16)) * uniform()
            try await sleep(min(capSeconds, max(backoff, retryAfter)))
        }
    }
}
