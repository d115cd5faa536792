import Foundation
import WireFormat

/// Sends a file so that a lost connection costs only what was on its way.
///
/// `PATCH` with `Upload-Offset`, as the server's API describes it: after an error the server is asked with `HEAD` how much
/// has arrived, and the rest of the file is sent from there. The file is read while it is sent.
package struct ResumableUpload: Sendable {
    /// The absolute URL of the update.
    package var url: String
    /// Header fields of every request, such as `Authorization`.
    package var headers: [String: String]
    /// The file.
    package var path: String
    /// The file's SHA-256 in Base64.
    package var sha256: String
    /// Whether an earlier attempt may have brought bytes to the server.
    package var isRepeated: Bool

    /// Describes an upload.
    package init(url: String, headers: [String: String], path: String, sha256: String, isRepeated: Bool) {
        self.url = url
        self.headers = headers
        self.path = path
        self.sha256 = sha256
        self.isRepeated = isRepeated
    }

    private enum Step {
        /// So many bytes have arrived.
        case offset(Int)
        /// There is nothing more to send, or no use in it.
        case done(TransportResponse)
    }

    /// Sends until there is an answer that is not temporary, or the tries are used up without any progress.
    ///
    /// - Returns: The last answer.
    /// - Throws: ``ClientError`` of the last try; cancellation.
    package func send(over transport: any Transport, retry: RetryPolicy) async throws -> TransportResponse {
        var offset: Int? = isRepeated ? nil : 0
        var attempts = retry.attempts()
        var furthest = 0
        while true {
            do {
                if offset == nil {
                    switch try await ask(transport) {
                    case .offset(let arrived):
                        // Bytes that arrived are progress: a bad line ends only an upload that stands still.
                        if arrived > furthest { attempts = retry.attempts() }
                        furthest = max(furthest, arrived)
                        offset = arrived
                    case .done(let response):
                        guard retry.isTemporary(response) else { return response }
                        guard try await attempts.next(after: response) else { return response }
                        continue
                    }
                }
                let start = offset ?? 0
                let response = try await append(at: start, transport)
                switch response.status {
                // A server, or something in front of it, that knows no resumable uploads.
                case 405, 501: return try await retry.send(whole, over: transport)
                // Another try of the same upload had more luck than its answer.
                case 409 where Self.code(of: response) == "offset_mismatch": offset = nil
                case 409 where Self.code(of: response) == "upload_taken_over": offset = nil
                // What had arrived before was something else: it is gone, and the file is sent from its beginning.
                case 422 where start > 0 && Self.code(of: response) == "digest_mismatch": offset = 0
                case _ where retry.isTemporary(response): offset = nil
                default: return response
                }
                guard try await attempts.next(after: response) else { return response }
            } catch let error as ClientError where error.isTemporary {
                guard try await attempts.next(after: nil) else { throw error }
                offset = nil
            }
        }
    }

    // MARK: - Requests

    private func ask(_ transport: any Transport) async throws -> Step {
        let response = try await transport.send(TransportRequest(method: "HEAD", url: url, headers: headers))
        if response.status == 204, let offset = response.headers["upload-offset"].flatMap({ Int($0) }), offset >= 0 {
            // Also where the update was accepted already: its receipt comes when nothing is sent after its end.
            return .offset(offset)
        }
        // Why not is said in the answer to a request that may have a body.
        return (400..<500).contains(response.status) && !RetryPolicy.isTemporary(response.status)
            ? .offset(0) : .done(response)
    }

    private func append(at offset: Int, _ transport: any Transport) async throws -> TransportResponse {
        var request = whole
        request.method = "PATCH"
        request.body = .file(path: path, offset: offset)
        request.headers["Content-Type"] = "application/partial-upload"
        request.headers["Content-Digest"] = nil
        request.headers["Repr-Digest"] = "sha-256=:\(sha256):"
        request.headers["Upload-Offset"] = String(offset)
        request.headers["Upload-Complete"] = "?1"
        return try await transport.send(request)
    }

    private var whole: TransportRequest {
        var fields = headers
        fields["Content-Type"] = "application/vnd.safetensors"
        fields["Content-Digest"] = "sha-256=:\(sha256):"
        return TransportRequest(
            method: "PUT",
            url: url,
            headers: fields,
            body: .file(path: path),
            timeoutSeconds: 600
        )
    }

    private static func code(of response: TransportResponse) -> String? {
        try? WireCoding.decode(ProblemDocument.self, from: response.body).code
    }
}
