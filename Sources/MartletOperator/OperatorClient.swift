import Foundation
public import MartletTransport
import StrictJSON
package import WireFormat

/// A server's operator: creates populations and runs, steers them, and reads what they came to.
///
/// It does what the commands of `martlet` do, over any `Transport`. A method is one request, but for those that say
/// otherwise, and no request is repeated: what was refused or lost is for the caller to decide.
///
/// Methods throw ``OperatorError`` for what the server refuses, `ClientError` when there is no answer, and `DecodingError` for
/// an answer of a server of another version.
public struct OperatorClient: Sendable {
    private let origin: ServerOrigin
    private let token: String?
    private let transport: any Transport

    /// Names a server and who asks.
    ///
    /// - Parameters:
    ///   - server: The server's URL, such as `https://learning.example.org`.
    ///   - token: A viewer's, operator's or administrator's token; `nil` on a server that asks for none.
    ///   - transport: Sends the requests.
    /// - Throws: `ClientError` with code `server_url`.
    public init(server: String, token: String? = nil, transport: any Transport) throws {
        origin = try ServerOrigin(server)
        self.token = token?.trimmingCharacters(in: .whitespacesAndNewlines)
        self.transport = transport
    }

    // MARK: - Any endpoint

    /// Asks an endpoint that takes no body.
    package func answer<Answer>(to target: RequestTarget<NoDocument, Answer>) async throws -> AnswerDocument<Answer> {
        // A POST without a body says that it has none.
        try await send(target, target.method == .post ? .bytes(Data()) : .none, contentType: nil)
    }

    /// Asks an endpoint that takes a document.
    package func answer<Body: Encodable, Answer>(
        to target: RequestTarget<Body, Answer>,
        _ body: Body
    ) async throws -> AnswerDocument<Answer> {
        try await send(target, .bytes(WireCoding.encode(body)), contentType: "application/json")
    }

    /// Asks an endpoint that takes bytes of some media type.
    package func answer<Answer>(
        to target: RequestTarget<Octets, Answer>,
        _ body: TransportRequest.Body,
        contentType: String
    ) async throws -> AnswerDocument<Answer> {
        try await send(target, body, contentType: contentType)
    }

    /// So many items of one list are taken.
    package static let itemLimit = 1_000_000

    /// All items of a list, page by page.
    ///
    /// - Throws: ``OperatorError``, `ClientError` or `DecodingError`; ``ListError`` for a list without an end.
    package func items<Item: Decodable>(of target: RequestTarget<NoDocument, Page<Item>>) async throws -> [Item] {
        var items: [Item] = []
        var cursor: String?
        repeat {
            let page = try await answer(to: target.with("cursor", cursor)).decoded()
            items += page.items
            // A page without items, or after which the same one follows, brings the list no nearer to its end.
            guard page.nextCursor == nil || !page.items.isEmpty && page.nextCursor != cursor,
                items.count <= Self.itemLimit
            else { throw ListError(path: target.target) }
            cursor = page.nextCursor
        } while cursor != nil
        return items
    }

    /// Fetches a file.
    ///
    /// - Parameters:
    ///   - target: Where it is.
    ///   - path: Where it goes; what is there is replaced.
    ///   - sha256: The file's, in hexadecimal: an answer that does not name it is nobody's.
    ///   - byteLimit: Bytes that are taken, at most.
    /// - Throws: ``OperatorError``, `ClientError` or `DecodingError`.
    package func download(
        _ target: RequestTarget<NoDocument, Octets>,
        to path: String,
        sha256: String,
        byteLimit: Int
    ) async throws {
        var request = request(target, .none, contentType: nil)
        // What was there is replaced by what was asked for, or not at all.
        let part = path + ".part"
        defer { try? FileManager.default.removeItem(atPath: part) }
        request.destination = part
        request.fileSHA256 = sha256
        request.byteLimit = byteLimit
        request.longestSeconds = Self.longestSeconds(ofBytes: byteLimit)
        _ = try await response(to: request)
        // The field that names the hash is the server's word, and not what came.
        let actual = try FileDigest.hexadecimal(part)
        guard actual == sha256 else {
            throw ClientError(
                code: "digest_mismatch",
                message:
                    "the downloaded file has SHA-256 \(actual), and \(PrintableText.escaped(sha256, limit: 80)) was promised"
            )
        }
        guard rename(part, path) == 0 else { throw LocalFailure.error("write", path, errno) }
    }

    /// An hour, and what a file takes at 16 kiB a second.
    private static func longestSeconds(ofBytes count: Int) -> Double { 3600 + Double(max(0, count)) / 16_384 }

    // MARK: -

    private func send<Body, Answer>(
        _ target: RequestTarget<Body, Answer>,
        _ body: TransportRequest.Body,
        contentType: String?
    ) async throws -> AnswerDocument<Answer> {
        AnswerDocument(bytes: try await response(to: request(target, body, contentType: contentType)).body)
    }

    private func request<Body, Answer>(
        _ target: RequestTarget<Body, Answer>,
        _ body: TransportRequest.Body,
        contentType: String?
    ) -> TransportRequest {
        var headers: [String: String] = [:]
        if let token { headers["Authorization"] = "Bearer " + token }
        if let contentType { headers["Content-Type"] = contentType }
        return TransportRequest(
            method: target.method.rawValue,
            url: origin.base + target.target,
            headers: headers,
            body: body
        )
    }

    private func response(to request: TransportRequest) async throws -> TransportResponse {
        let response = try await transport.send(request)
        guard (200..<300).contains(response.status) else { throw OperatorError(response, url: request.url) }
        return response
    }
}

/// A list whose pages never end.
public struct ListError: Error, Sendable, CustomStringConvertible {
    /// What was asked for.
    let path: String

    /// What the server did.
    public var description: String {
        "the server's list \(PrintableText.escaped(path, limit: 200)) has no end: a page brings nothing new, or there are over "
            + "\(OperatorClient.itemLimit) items"
    }
}
