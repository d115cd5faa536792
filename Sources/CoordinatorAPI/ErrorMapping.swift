import Coordination
package import HTTPServing
import HTTPTypes
import StrictJSON
import Tensors
import WireFormat

/// Gives every error its status, code and problem document.
package enum ErrorMapping {
    package static func response(_ error: any Error, _ request: ServerRequest?) -> ServerResponse {
        var problem = document(of: error)
        problem.requestId = request?.requestID
        let bytes = (try? WireCoding.encode(problem)).map(Array.init) ?? []
        var headers: HTTPFields = [.contentType: "application/problem+json"]
        if problem.status == 503 { headers[.retryAfter] = String(Int.random(in: 2...8)) }
        if let limit = error as? RateLimitError {
            headers[.retryAfter] = String(max(1, Int(min(86_400, limit.retryAfter.rounded(.up)))))
        }
        if let offset = error as? UploadOffsetError, let name = UploadField.offset {
            headers[name] = String(offset.expected)
        }
        if error is ContentCodingError { headers[.acceptEncoding] = "identity" }
        if let condition = error as? PreconditionError { headers[.eTag] = condition.tag }
        if problem.status == 401 { headers[.wwwAuthenticate] = "Bearer" }
        var response = ServerResponse(status: problem.status, headers: headers, body: .bytes(bytes))
        response.problemCode = problem.code
        return response
    }

    /// Whether the error is the server's own fault.
    package static func isInternal(_ error: any Error) -> Bool { document(of: error).status == 500 }

    /// The machine-readable code that the answer to this error carries.
    package static func code(of error: any Error) -> String { document(of: error).code }

    private static func document(of error: any Error) -> ProblemDocument {
        switch error {
        case SafetensorsError.inputOutput(let path, let code):
            return document(of: StorageFailure(.read, path: path, code: code).error)
        case let error as CoordinationError:
            let (status, title) = status(of: error.kind)
            return ProblemDocument(title: title, status: status, detail: error.message, code: error.code)
        case let failure as StoreFailure: return document(of: failure.error)
        case is RecoveringError:
            return ProblemDocument(
                title: "Not available now",
                status: 503,
                detail: "the server has started and verifies its data; the same request will be answered in a moment",
                code: "recovering"
            )
        case let error as DocumentError:
            let first = error.problems.first
            return ProblemDocument(
                title: "The document is not valid",
                status: 422,
                detail: error.problems.count == 1
                    ? (first.map { $0.pointer.isEmpty ? "it \($0.detail)" : "\($0.pointer) \($0.detail)" } ?? "")
                    : error.problems.count > DocumentError.countLimit
                        ? "more than \(DocumentError.countLimit) fields are wrong; see errors for some of them"
                        : "\(error.problems.count) fields are wrong; see errors",
                code: "invalid_document",
                errors: Array(error.problems.prefix(DocumentError.countLimit))
            )
        case let error as SafetensorsError:
            return ProblemDocument(
                title: "Not a usable safetensors file",
                status: 422,
                detail: error.description,
                code: "tensor_mismatch"
            )
        case let offset as UploadOffsetError:
            return ProblemDocument(
                title: "Not where the upload stopped",
                status: 409,
                detail: "\(offset.expected) bytes have arrived; Upload-Offset says \(offset.provided)",
                code: "offset_mismatch"
            )
        case let condition as PreconditionError:
            return ProblemDocument(
                title: ReasonPhrase.of(412),
                status: 412,
                detail: "it has changed since it was read: If-Match names another state than that of \(condition.tag); "
                    + "read it again and decide anew",
                code: "precondition_failed"
            )
        case let error as ContentCodingError:
            return ProblemDocument(
                title: ReasonPhrase.of(415),
                status: 415,
                detail: "the body has Content-Encoding '\(error.coding.prefix(40))'; send it as it is, without that "
                    + "field: updates are made smaller by the run's training.encoding",
                code: "unsupported_media_type"
            )
        case let limit as RateLimitError:
            return ProblemDocument(
                title: "Too many requests",
                status: 429,
                detail: "this \(limit.scope == .client ? "client" : "address") asks too often; see Retry-After",
                code: "rate_limited"
            )
        case is ConnectionError:
            // Nobody reads this answer; it keeps a broken connection out of the server's own errors.
            return ProblemDocument(
                title: "Connection lost",
                status: 400,
                detail: "the connection ended before the request did",
                code: "connection_lost"
            )
        case let error as PathParameterError: return document(of: ParseFailure(status: 404, detail: error.detail))
        case let failure as ParseFailure:
            return ProblemDocument(
                title: ReasonPhrase.of(failure.status),
                status: failure.status,
                detail: failure.detail,
                code: code(of: failure.status)
            )
        default:
            if let failure = StorageFailure(error) { return document(of: failure.error) }
            return ProblemDocument(
                title: "Internal error",
                status: 500,
                detail: "the request failed inside the server; nothing was changed",
                code: "internal"
            )
        }
    }

    private static func status(of kind: CoordinationError.Kind) -> (Int, String) {
        switch kind {
        case .unauthorized: (401, "Not authorised")
        case .forbidden: (403, "Not allowed")
        case .notFound: (404, "Not found")
        case .conflict: (409, "Not possible in this state")
        case .gone: (410, "No longer wanted")
        case .tooLarge: (413, "Too large")
        case .unprocessable: (422, "Not acceptable as it stands")
        case .unavailable: (503, "Not available now")
        }
    }

    private static func code(of status: Int) -> String {
        switch status {
        case 404: "not_found"
        case 405: "method_not_allowed"
        case 406: "not_acceptable"
        case 408: "timeout"
        case 413: "too_large"
        case 415: "unsupported_media_type"
        case 431: "head_too_large"
        case 501: "not_implemented"
        default: "bad_request"
        }
    }
}
