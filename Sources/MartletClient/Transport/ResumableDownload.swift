import CLibrary
import Foundation
package import MartletTransport
import Tensors

/// Fetches an immutable file so that a lost connection costs only what was on its way.
///
/// What has arrived stays in the file; the rest is asked for by `Range` (RFC 9110, section 14), also by the next process.
/// Whether all of it belongs together is for the caller to check, by the hash of the whole.
package struct ResumableDownload: Sendable {
    /// The absolute URL of the file.
    package var url: String
    /// Header fields of every request, such as `Authorization`.
    package var headers: [String: String]
    /// Where the file goes; what is there is taken for its beginning.
    package var path: String
    /// The file's size, where it is known: no more bytes are taken.
    package var byteCount: Int?
    /// The file's SHA-256 in hexadecimal, where it is known: an answer that does not name it is nobody's.
    package var sha256: String?
    /// When nobody waits for the file any more, however slowly it still comes.
    package var end: ContinuousClock.Instant?
    /// Is told what has moved.
    package var onProgress: (@Sendable (TransferProgress) -> Void)?

    /// Describes a download.
    package init(url: String, headers: [String: String], path: String) {
        self.url = url
        self.headers = headers
        self.path = path
    }

    /// Asks until the file is whole, there is an answer that is not temporary, or the tries are used up without progress.
    ///
    /// - Returns: The SHA-256 that the server names for the whole file, in hexadecimal, where it names one.
    /// - Throws: `ClientError` of the last try; cancellation.
    @discardableResult package func send(over transport: any Transport, retry: RetryPolicy) async throws -> String? {
        var attempts = retry.attempts()
        if let byteCount, arrived > byteCount { try forget() }
        var furthest = arrived
        while true {
            let offset = arrived
            var answer: TransportResponse?
            do {
                let response = try await transport.send(request(from: offset))
                answer = response
                switch response.status {
                case 200, 206:
                    // Somebody else's answer, where the file should be.
                    guard request(from: offset).takes(response) else {
                        // A transport that has written it all the same.
                        if arrived != offset { try forget() }
                        throw ClientError.foreign(response, url: url)
                    }
                    retry.watch?.answered()
                    return FileDigestField.whole(of: response)
                // As many bytes as there are, or more: whether they are the right ones the hash will tell.
                case 416 where offset > 0 && request(from: offset).takes(response):
                    if Self.size(of: response) == offset { return FileDigestField.whole(of: response) }
                    try forget()
                default: throw ClientError(answer: response, url: url)
                }
            } catch let error as ClientError {
                // Bytes that arrived are progress: a bad line ends only a download that stands still.
                if arrived > furthest, end.map({ .now < $0 }) ?? true {
                    attempts = retry.attempts()
                    furthest = arrived
                }
                try await attempts.next(after: error, answer)
            }
        }
    }

    private var arrived: Int { FileManager.default.byteCount(atPath: path) }

    private func forget() throws { try PlainFile.empty(path) }

    private func request(from offset: Int) -> TransportRequest {
        var request = TransportRequest(method: "GET", url: url, headers: headers)
        request.destination = path
        request.onProgress = onProgress
        request.byteLimit = byteCount ?? .max
        request.fileSHA256 = sha256
        request.longestSeconds = end.map { max(1, ($0 - .now) / .seconds(1)) }
        if offset > 0 {
            request.headers["Range"] = "bytes=\(offset)-"
            request.destinationOffset = offset
        }
        return request
    }

    /// The size that the answer to an unsatisfiable range names: `bytes */N`.
    private static func size(of response: TransportResponse) -> Int? {
        response.headers["content-range"].flatMap { Int($0.split(separator: "/").last ?? "") }
    }
}
