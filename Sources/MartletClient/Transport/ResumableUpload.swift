import Foundation
package import MartletTransport
package import WireFormat

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
    /// What the server answers when it has the file.
    package var expected: ExpectedReceipt
    /// Whether an earlier attempt may have brought bytes to the server.
    package var isRepeated: Bool
    /// What the file is, as it is said where it is sent whole.
    package var contentType = Self.safetensors
    /// When the file is not worth sending any more, however slowly it is still read; a request under way has a minute more.
    package var end: ContinuousClock.Instant?
    /// Is told what has moved.
    package var onProgress: (@Sendable (TransferProgress) -> Void)?

    /// Describes an upload.
    package init(
        url: String,
        headers: [String: String],
        path: String,
        expected: ExpectedReceipt,
        isRepeated: Bool
    ) {
        self.url = url
        self.headers = headers
        self.path = path
        self.expected = expected
        self.isRepeated = isRepeated
    }

    static let safetensors = "application/vnd.safetensors"

    /// Refusals of parts, by somebody who is not the server, after which the file is sent whole.
    private static let foreignRefusalLimit = 2

    /// Sends until the server's receipt is there, its refusal is final, or the tries are used up without any progress.
    ///
    /// - Returns: The receipt.
    /// - Throws: `ClientError` of the last try; cancellation.
    package func send(over transport: any Transport, retry: RetryPolicy) async throws -> ReceiptAnswer {
        var offset: Int? = isRepeated ? nil : 0
        var attempts = retry.attempts()
        var furthest = 0
        var foreignRefusals = 0
        while true {
            // A server, or something in front of it, that knows no resumable uploads.
            if foreignRefusals >= Self.foreignRefusalLimit {
                return try await retry.send(whole, over: transport) { try expected.read($0, url: url) }
            }
            var answer: TransportResponse?
            var start = 0
            do {
                if offset == nil {
                    var request = TransportRequest(method: "HEAD", url: url, headers: headers)
                    request.byteLimit = ServerAnswer.byteLimit
                    let response = try await transport.send(request)
                    answer = response
                    let arrived = try arrived(response)
                    // Bytes that arrived are progress: a bad line ends only an upload that stands still.
                    if arrived > furthest, end.map({ .now < $0 }) ?? true { attempts = retry.attempts() }
                    furthest = max(furthest, arrived)
                    offset = arrived
                }
                start = offset ?? 0
                let response = try await append(at: start, transport)
                answer = response
                if [405, 501].contains(response.status) {
                    foreignRefusals = Self.foreignRefusalLimit
                    continue
                }
                let receipt = try expected.read(response, url: url)
                retry.watch?.answered()
                return receipt
            } catch let error as ClientError {
                if error.code == ClientError.foreignAnswer, [400, 403, 404, 415].contains(error.status) {
                    foreignRefusals += 1
                }
                // What had arrived before was something else: it is gone, and the file is sent from its beginning. After all else
                // the server is asked: another try of the same upload may have had more luck than its answer.
                offset = error.is(.digestMismatch) && start > 0 ? 0 : nil
                try await attempts.next(after: error, answer)
            }
        }
    }

    // MARK: - Requests

    /// How much has arrived, by the answer to `HEAD`.
    private func arrived(_ response: TransportResponse) throws -> Int {
        if response.status == 204, let offset = response.headers["upload-offset"].flatMap({ Int($0) }),
            (0...FileManager.default.byteCount(atPath: path)).contains(offset)
        {
            // Where the update was accepted already its receipt comes when nothing is sent after its end; the server may not
            // know any more where that is.
            return response.headers["upload-complete"] == "?1" ? FileManager.default.byteCount(atPath: path) : offset
        }
        // Why not is said in the answer to a request that may have a body.
        if (400..<500).contains(response.status), ![408, 429].contains(response.status) { return 0 }
        throw ClientError(answer: response, url: url)
    }

    private func append(at offset: Int, _ transport: any Transport) async throws -> TransportResponse {
        var request = whole
        request.method = "PATCH"
        request.body = .file(path: path, offset: offset)
        request.headers["Content-Type"] = "application/partial-upload"
        request.headers["Content-Digest"] = nil
        request.headers["Repr-Digest"] = "sha-256=:\(expected.sha256):"
        request.headers["Upload-Offset"] = String(offset)
        request.headers["Upload-Complete"] = "?1"
        return try await transport.send(request)
    }

    private var whole: TransportRequest {
        var fields = headers
        fields["Content-Type"] = contentType
        fields["Content-Digest"] = "sha-256=:\(expected.sha256):"
        var request = TransportRequest(
            method: "PUT",
            url: url,
            headers: fields,
            body: .file(path: path)
        )
        request.byteLimit = ServerAnswer.byteLimit
        request.followsLinks = false
        request.longestSeconds = end.map { max(60, ($0 - .now) / .seconds(1)) }
        request.onProgress = onProgress
        return request
    }
}
