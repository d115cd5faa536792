import Foundation
import MartletTransport
import SecureAggregation
import WireFormat

extension ServerSession {
    /// Updates of fewer bytes are sent again whole when a connection is lost.
    private static let resumableByteCount = 1 << 20

    /// The download of a model's file, from now on for as long as an assignment lasts; where it goes is for the caller to say.
    func download(of file: Assignment.ModelFile, within time: PeerDuration) throws -> ResumableDownload {
        var download = ResumableDownload(url: try url(file.path), headers: authorization, path: "")
        download.byteCount = file.fileByteCount
        download.sha256 = file.fileHash.text
        download.end = .now + time.duration
        download.onProgress = voice.followTransfer
        return download
    }

    /// A small document, such as a tokeniser, whose hash is for the caller to check.
    func document(at path: ServerPath, sha256: ContentHash, within time: PeerDuration) async throws -> Data {
        var request = TransportRequest(method: "GET", url: try url(path), headers: authorization)
        request.byteLimit = limits.documentBytes
        request.longestSeconds = time.seconds
        request.fileSHA256 = sha256.text
        let whole = request
        return try await retry.send(whole, over: transport) { response in
            try response.unreadDocument(from: whole.url, sha256: sha256)
        }
    }

    /// Sends a finished file until the server's receipt is there, or its refusal.
    ///
    /// - Parameters:
    ///   - path: The file.
    ///   - target: Where the server wants it.
    ///   - contentType: `nil` for a safetensors file.
    ///   - expected: What the receipt must name.
    ///   - isRepeated: Whether an earlier attempt may have brought bytes to the server.
    ///   - seconds: When it is not worth sending any more.
    /// - Returns: The receipt.
    /// - Throws: `ClientError` of the refusal, or of the last try; cancellation.
    func upload(
        _ path: String,
        to target: ServerPath,
        contentType: String?,
        expected: ExpectedReceipt,
        isRepeated: Bool,
        within seconds: Double
    ) async throws -> ReceiptAnswer {
        let url = try url(target)
        if FileManager.default.byteCount(atPath: path) >= Self.resumableByteCount,
            contentType.map({ $0 == MaskedUpdateFile.mediaType }) ?? true
        {
            var upload = ResumableUpload(
                url: url,
                headers: authorization,
                path: path,
                expected: expected,
                isRepeated: isRepeated
            )
            if let contentType { upload.contentType = contentType }
            upload.end = .now + .seconds(min(seconds, 1e9))
            upload.onProgress = voice.followTransfer
            return try await upload.send(over: transport, retry: retry)
        }
        var headers = authorization
        headers["Content-Type"] = contentType ?? ResumableUpload.safetensors
        headers["Content-Digest"] = "sha-256=:\(expected.sha256):"
        var request = TransportRequest(method: "PUT", url: url, headers: headers, body: .file(path: path))
        request.byteLimit = ServerAnswer.byteLimit
        request.followsLinks = false
        request.longestSeconds = seconds
        request.onProgress = voice.followTransfer
        return try await retry.send(request, over: transport) { try expected.read($0, url: url) }
    }
}
