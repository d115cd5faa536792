import Foundation
import MartletTransport
import Synchronization
import WireFormat

/// Speaks with the device's server: the one place that makes URLs and shows the token.
final class ServerSession: Sendable {
    /// What the answers so far have taught.
    struct Habits: Sendable {
        /// The longest wait for work that whatever stands before the server lets through, in seconds.
        var pollLimit = 60
        /// Whether the server knows generations of a state.
        var saysGeneration = true
    }

    /// The server's base URL, as the owner has written it.
    let server: String
    let transport: any Transport
    let retry: RetryPolicy
    let limits: ClientLimits
    let voice: ClientVoice
    let habits = Mutex(Habits())
    private let origin: ServerOrigin?
    private let token: @Sendable () -> BearerToken?

    /// Creates a session; `token` is asked before each request, and has none before the device has registered.
    init(
        server: String,
        transport: any Transport,
        retry: RetryPolicy,
        limits: ClientLimits,
        voice: ClientVoice,
        token: @escaping @Sendable () -> BearerToken?
    ) {
        self.server = server
        self.transport = CheckedTransport(transport)
        self.limits = limits
        self.voice = voice
        self.token = token
        origin = try? ServerOrigin(server)
        var retry = retry
        if retry.watch == nil { retry.watch = OutageWatch(now: retry.now) { voice.notify($0) } }
        self.retry = retry
    }

    /// The header fields that say who asks.
    var authorization: [String: String] { token().map { Self.authorization($0.text) } ?? [:] }

    private static func authorization(_ token: String) -> [String: String] { ["Authorization": "Bearer \(token)"] }

    /// A path's URL on the configured server.
    func url(_ path: ServerPath) throws -> String { try (origin ?? ServerOrigin(server)).url(path) }

    /// A request without a body, whose answer is a document.
    func request<Document>(_ target: RequestTarget<NoDocument, Document>) throws -> TransportRequest {
        var request = TransportRequest(method: target.method.rawValue, url: try url(target), headers: authorization)
        request.byteLimit = ServerAnswer.byteLimit
        return request
    }

    private func url<Body, Document>(_ target: RequestTarget<Body, Document>) throws -> String {
        try (origin ?? ServerOrigin(server)).base + target.target
    }

    /// Sends JSON and reads JSON; `passing` takes answers that are no documents of the server's and yet mean something.
    ///
    /// Throws `ClientError`, and what `read` does.
    func call<Body: Encodable, Document, Answer: Sendable>(
        _ target: RequestTarget<Body, Document>,
        _ body: Body,
        token: String? = nil,
        headers: [String: String] = [:],
        passing: @Sendable (TransportResponse) -> Answer? = { _ in nil },
        reading read: @Sendable (TransportResponse) throws -> Answer
    ) async throws -> Answer {
        var fields = token.map { Self.authorization($0) } ?? authorization
        fields["Content-Type"] = "application/json"
        fields.merge(headers) { _, new in new }
        let url = try url(target)
        var request = TransportRequest(
            method: target.method.rawValue,
            url: url,
            headers: fields,
            body: .bytes(try WireCoding.encode(body))
        )
        request.byteLimit = ServerAnswer.byteLimit
        return try await retry.send(request, over: transport) { response in
            if let answer = passing(response) { return answer }
            return try response.document(from: url) { try read(response) }
        }
    }
}
