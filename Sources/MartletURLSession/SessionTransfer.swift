import Foundation
import MartletTransport
import Synchronization

#if canImport(FoundationNetworking)
import FoundationNetworking
#endif

/// One request in flight: where its bytes go, and how long it may stand still.
final class SessionTransfer: Sendable {
    let task: URLSessionDataTask
    private let request: TransportRequest
    private let state: Mutex<State>

    private struct State {
        var body: AnswerBody
        var continuation: CheckedContinuation<TransportResponse, any Error>?
        /// How it ended; the first end counts.
        var result: Result<TransportResponse, any Error>?
        var sentByteCount = 0
        var lastMove = ContinuousClock.now
        /// When the last byte of the request was sent that has been.
        var lastSent = ContinuousClock.now
        var watch: Task<Void, Never>?
    }

    init(_ request: TransportRequest, _ task: URLSessionDataTask) {
        (self.request, self.task) = (request, task)
        state = Mutex(State(body: AnswerBody(request)))
    }

    /// Starts, unless it was cancelled before.
    func begin(_ continuation: CheckedContinuation<TransportResponse, any Error>) {
        let ended = state.withLock { state -> Result<TransportResponse, any Error>? in
            guard state.result == nil else { return state.result }
            state.continuation = continuation
            (state.lastMove, state.lastSent) = (.now, .now)
            state.watch = Task { await self.watch() }
            return nil
        }
        guard let ended else { return task.resume() }
        continuation.resume(with: ended)
        task.cancel()
    }

    /// Ends the transfer for the one who waits; the session's task ends by itself later.
    func end(_ result: Result<TransportResponse, any Error>) {
        let continuation = state.withLock { state -> CheckedContinuation<TransportResponse, any Error>? in
            guard state.result == nil else { return nil }
            state.result = result
            state.watch?.cancel()
            try? state.body.close()
            defer { state.continuation = nil }
            return state.continuation
        }
        continuation?.resume(with: result)
        if case .failure = result { task.cancel() }
    }

    // MARK: - What the session tells

    func receive(_ response: URLResponse) { moved() }

    func receive(_ data: Data, of response: URLResponse?) {
        guard let response = response as? HTTPURLResponse else { return }
        let failure = state.withLock { state -> ClientError? in
            guard state.result == nil else { return nil }
            state.lastMove = .now
            let headers = Self.headers(of: response)
            return data.withUnsafeBytes { raw in
                do throws(ClientError) {
                    try state.body.take(raw, status: response.statusCode, headers: headers)
                    return nil
                } catch { return error }
            }
        }
        if let failure { return end(.failure(failure)) }
        tellProgress()
    }

    func sent(_ count: Int) {
        state.withLock { state in
            state.sentByteCount = count
            (state.lastMove, state.lastSent) = (.now, .now)
        }
        tellProgress()
    }

    func complete(_ response: URLResponse?, _ error: (any Error)?) {
        if let error { return end(.failure(SessionFailure.error(error, url: request.url))) }
        guard let response = response as? HTTPURLResponse else {
            return end(.failure(ClientError(code: "network", message: "the answer of \(request.url) was cut")))
        }
        let headers = Self.headers(of: response)
        let (body, received, failure) = state.withLock { state -> (Data, Int, ClientError?) in
            var failure: ClientError?
            // A full disk may show itself here first.
            if state.result == nil { do throws(ClientError) { try state.body.close() } catch { failure = error } }
            return (state.body.memory, state.body.byteCount, failure)
        }
        if let failure { return end(.failure(failure)) }
        let hasBody = request.method != "HEAD" && ![204, 304].contains(response.statusCode)
        if hasBody, headers["content-encoding"] == nil, let said = headers["content-length"].flatMap({ Int($0) }),
            said != received, !(300..<400).contains(response.statusCode)
        {
            return end(.failure(ClientError(code: "network", message: "the answer of \(request.url) was cut")))
        }
        end(.success(TransportResponse(status: response.statusCode, headers: headers, body: body)))
    }

    // MARK: - Time

    private func moved() { state.withLock { $0.lastMove = .now } }

    /// Ends the transfer when nothing has moved for too long, or when all of it lasts too long.
    private func watch() async {
        let idle = Duration.seconds(max(1, min(1e6, request.timeoutSeconds)))
        let start = ContinuousClock.now
        let longest = request.longestSeconds.map { start + .seconds(max(0.001, min($0, 1e7))) }
        let answer = Duration.seconds(max(0.001, min(request.answerSeconds, 1e7)))
        while !Task.isCancelled {
            let (still, sent) = state.withLock { ($0.lastMove + idle, $0.lastSent) }
            // An answer that drips for ever ends; a file's has its caller's limit.
            let ends = [still, longest, request.destination == nil ? sent + answer : nil].compactMap(\.self)
            let next = ends.min() ?? still
            guard next > .now else {
                let moved = next == still ? "no byte has moved for \(idle)" : "it lasts too long"
                return end(
                    .failure(ClientError(code: "network", message: "no answer from \(request.url): \(moved)"))
                )
            }
            try? await Task.sleep(until: next, clock: .continuous)
        }
    }

    private func tellProgress() {
        guard let onProgress = request.onProgress else { return }
        let progress = state.withLock {
            TransferProgress(sentByteCount: $0.sentByteCount, receivedByteCount: $0.body.byteCount)
        }
        onProgress(progress)
    }

    private static func headers(of response: HTTPURLResponse) -> [String: String] {
        var headers: [String: String] = [:]
        for (name, value) in response.allHeaderFields.prefix(200) {
            guard let name = name as? String, let value = value as? String else { continue }
            headers[name.lowercased()] = value.trimmingCharacters(in: .whitespacesAndNewlines)
        }
        return headers
    }
}
