import Foundation

#if canImport(Glibc)
import Glibc
#endif

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

    /// Describes a download.
    package init(url: String, headers: [String: String], path: String) {
        self.url = url
        self.headers = headers
        self.path = path
    }

    /// Asks until the file is whole, there is an answer that is not temporary, or the tries are used up without progress.
    ///
    /// - Returns: The SHA-256 that the server names for the whole file, in hexadecimal, where it names one.
    /// - Throws: ``ClientError`` of the last try; cancellation.
    package func send(over transport: any Transport, retry: RetryPolicy) async throws -> String? {
        var attempts = retry.attempts()
        var furthest = arrived
        while true {
            let offset = arrived
            do {
                let response = try await transport.send(request(from: offset))
                switch response.status {
                case 200, 206: return Self.digest(of: response)
                // As many bytes as there are, or more: whether they are the right ones the hash will tell.
                case 416 where offset > 0 && Self.size(of: response) == offset: return Self.digest(of: response)
                case 416 where offset > 0: try forget()
                case _ where retry.isTemporary(response):
                    guard try await attempts.next(after: response) else { throw ClientError(answer: response) }
                default: throw ClientError(answer: response)
                }
            } catch let error as ClientError where error.isTemporary && error.status == nil {
                // Bytes that arrived are progress: a bad line ends only a download that stands still.
                if arrived > furthest {
                    attempts = retry.attempts()
                    furthest = arrived
                }
                guard try await attempts.next(after: nil) else { throw error }
            }
        }
    }

    private var arrived: Int { FileManager.default.byteCount(atPath: path) }

    private func forget() throws {
        guard truncate(path, 0) == 0 else { throw ClientError(code: "storage", message: "cannot write \(path)") }
    }

    private func request(from offset: Int) -> TransportRequest {
        var request = TransportRequest(method: "GET", url: url, headers: headers, timeoutSeconds: 600)
        request.destination = path
        if offset > 0 {
            request.headers["Range"] = "bytes=\(offset)-"
            request.destinationOffset = offset
        }
        return request
    }

    /// The hash of the whole: a part's own `Content-Digest` would be another.
    private static func digest(of response: TransportResponse) -> String? {
        let field =
            response.headers["repr-digest"] ?? (response.status == 200 ? response.headers["content-digest"] : nil)
        return field.flatMap(ContentDigestField.hexadecimal(of:))
    }

    /// The size that the answer to an unsatisfiable range names: `bytes */N`.
    private static func size(of response: TransportResponse) -> Int? {
        response.headers["content-range"].flatMap { Int($0.split(separator: "/").last ?? "") }
    }
}
