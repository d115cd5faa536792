package import HTTPTypes

/// The reason phrase of a status (RFC 9110 section 15).
package enum ReasonPhrase {
    /// The phrase; empty for an unknown status.
    package static func of(_ status: Int) -> String {
        switch status {
        case 100: "Continue"
        case 200: "OK"
        case 201: "Created"
        case 202: "Accepted"
        case 204: "No Content"
        case 206: "Partial Content"
        case 301: "Moved Permanently"
        case 303: "See Other"
        case 304: "Not Modified"
        case 307: "Temporary Redirect"
        case 308: "Permanent Redirect"
        case 400: "Bad Request"
        case 401: "Unauthorized"
        case 403: "Forbidden"
        case 404: "Not Found"
        case 405: "Method Not Allowed"
        case 406: "Not Acceptable"
        case 408: "Request Timeout"
        case 409: "Conflict"
        case 410: "Gone"
        case 411: "Length Required"
        case 412: "Precondition Failed"
        case 413: "Content Too Large"
        case 414: "URI Too Long"
        case 415: "Unsupported Media Type"
        case 416: "Range Not Satisfiable"
        case 417: "Expectation Failed"
        case 421: "Misdirected Request"
        case 422: "Unprocessable Content"
        case 428: "Precondition Required"
        case 429: "Too Many Requests"
        case 431: "Request Header Fields Too Large"
        case 500: "Internal Server Error"
        case 501: "Not Implemented"
        case 503: "Service Unavailable"
        case 505: "HTTP Version Not Supported"
        default: ""
        }
    }
}

/// The body of an answer.
package enum ResponseBody: Sendable {
    case none
    case bytes([UInt8])
    /// A part of a file, read block by block.
    case file(path: String, range: Range<Int>)
    /// Blocks that are made while they are sent, in chunked coding. `send` sends one block and waits until the peer has taken it.
    case stream(@Sendable (_ send: @Sendable ([UInt8]) async throws -> Void) async throws -> Void)

    /// How many bytes follow the head; `nil` if that is not known beforehand.
    package var byteCount: Int? {
        switch self {
        case .none: 0
        case .bytes(let bytes): bytes.count
        case .file(_, let range): range.count
        case .stream: nil
        }
    }
}

/// A handler's answer.
package struct ServerResponse: Sendable {
    package var status: Int
    package var headers: HTTPFields
    package var body: ResponseBody
    /// The code of the problem document in the body, for the log.
    package var problemCode: String?

    package init(status: Int, headers: HTTPFields = [:], body: ResponseBody = .none) {
        self.status = status
        self.headers = headers
        self.body = body
    }

    /// The reason phrase that goes with the status.
    package var reasonPhrase: String { ReasonPhrase.of(status) }
}
