import Crypto
public import Foundation
public import MartletTransport
import StrictJSON
import Tensors
import WireFormat

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
    /// The time of day, for deadlines that outlive the process.
    public var now: @Sendable () -> Date
    /// Is told of every answer, and of every try without one.
    var watch: OutageWatch?

    /// The default policy, with the real clock.
    public init(
        attemptLimit: Int = 8,
        baseSeconds: Double = 0.5,
        capSeconds: Double = 300,
        sleep: @escaping @Sendable (Double) async throws -> Void = { try await RetryPolicy.wait($0) },
        uniform: @escaping @Sendable () -> Double = { Double.random(in: 0..<1) },
        now: @escaping @Sendable () -> Date = { Date() }
    ) {
        self.attemptLimit = attemptLimit
        self.baseSeconds = baseSeconds
        self.capSeconds = capSeconds
        self.sleep = sleep
        self.uniform = uniform
        self.now = now
    }

    /// Waits by the real clock, whoever computed the seconds: what is no time that can be waited for is no time at all.
    public static func wait(_ seconds: Double) async throws {
        try await Task.sleep(for: (PeerDuration(seconds: seconds) ?? .zero).duration)
    }

    /// Sends until there is an answer that is not temporary, or the tries are used up.
    ///
    /// - Returns: The answer: a success, or a refusal of the server's that is final.
    /// - Throws: `ClientError` of the last try; cancellation.
    public func send(_ request: TransportRequest, over transport: any Transport) async throws -> TransportResponse {
        try await send(request, over: transport) { response in
            if !(200..<300).contains(response.status) {
                let error = ClientError(answer: response, url: request.url)
                if error.isTemporary { throw error }
            }
            return response
        }
    }

    /// Sends until there is an answer that is the server's and can be read, a refusal that is final, or the tries are used up.
    ///
    /// - Parameters:
    ///   - request: The request.
    ///   - transport: Sends it.
    ///   - read: Makes a value of an answer. What it throws is temporary, unless it is a `ClientError` that is not.
    /// - Returns: The value.
    /// - Throws: `ClientError` of the last try; cancellation.
    func send<Value: Sendable>(
        _ request: TransportRequest,
        over transport: any Transport,
        reading read: @Sendable (TransportResponse) throws -> Value
    ) async throws -> Value {
        var attempts = attempts()
        while true {
            var answer: TransportResponse?
            do {
                let response = try await transport.send(request)
                answer = response
                let value: Value
                do { value = try read(response) } catch let error where !(error is ClientError) {
                    throw ClientError.foreign(response, url: request.url)
                }
                watch?.answered()
                return value
            } catch let error as ClientError {
                try await attempts.next(after: error, answer)
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
        /// - Parameters:
        ///   - error: Why the last one was of no use.
        ///   - response: Its answer, if there was any.
        /// - Throws: The error, where it is final, the tries are used up or the outage lasts too long; cancellation.
        mutating func next(after error: ClientError, _ response: TransportResponse?) async throws {
            guard error.isTemporary else {
                // A refusal that is final is an answer of the server's.
                if error.status != nil { policy.watch?.answered() }
                throw error
            }
            failed += 1
            policy.watch?.failed(error)
            let retryAfter = response?.headers["retry-after"].flatMap { PeerDuration(field: $0) }?.seconds ?? 0
            let wait = min(policy.capSeconds, max(policy.backoff(failed), retryAfter))
            guard failed < policy.attemptLimit, policy.watch?.isTooLong(after: wait) != true else { throw error }
            try await policy.sleep(wait)
        }
    }

    /// Counts the tries of one piece of work.
    func attempts() -> Attempts { Attempts(self) }

    /// The wait after so many failures in a row, by exponential backoff with full jitter.
    func backoff(_ failures: Int) -> Double {
        min(capSeconds, baseSeconds * Double(1 << min(failures, 16)) * uniform())
    }
}

extension TransportResponse {
    /// The answer as a JSON document of the server's.
    ///
    /// - Throws: `ClientError`: the server's refusal, or that it is not the server's answer.
    func document<Value>(from url: String, _ read: () throws -> Value) throws -> Value {
        guard (200..<300).contains(status) else { throw ClientError(answer: self, url: url) }
        guard mediaType == "application/json" || mediaType.isEmpty, (try? JSONValue.parse(Array(body))) != nil else {
            throw ClientError.foreign(self, url: url)
        }
        return try read()
    }

    /// The bytes of a JSON document of the server's that has not been parsed: whoever knows its hash looks at that first.
    ///
    /// - Parameters:
    ///   - url: Where it was asked for.
    ///   - sha256: Its hash: an answer that neither has nor names it is nobody's.
    /// - Returns: The bytes, whose hash may still be another where the server names the right one.
    /// - Throws: `ClientError`: the server's refusal, or that it is not the server's answer.
    func unreadDocument(from url: String, sha256: ContentHash) throws -> Data {
        guard (200..<300).contains(status) else { throw ClientError(answer: self, url: url) }
        func isSpace(_ byte: UInt8) -> Bool { [0x20, 0x09, 0x0A, 0x0D].contains(byte) }
        // What was cut, or is somebody's page, has other ends.
        guard mediaType == "application/json" || mediaType.isEmpty,
            body.first(where: { !isSpace($0) }) == UInt8(ascii: "{"),
            body.last(where: { !isSpace($0) }) == UInt8(ascii: "}"),
            names(sha256: sha256.text) || SHA256.hash(data: body).hexadecimal == sha256.text
        else { throw ClientError.foreign(self, url: url) }
        return body
    }
}
