package import HTTPTypes

/// What is sent after the head.
package enum ResponseBody: Sendable {
    case none
    case bytes([UInt8])
    /// A part of a file, read block by block.
    case file(path: String, range: Range<Int>)
    /// Blocks made while they are sent, in chunked coding; the closure is given what sends one and waits for the peer.
    case stream(@Sendable (_ send: @Sendable ([UInt8]) async throws -> Void) async throws -> Void)

    /// How many bytes follow the head, where that is known before.
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

    package init(status: Int, headers: HTTPFields = [:], body: ResponseBody = .none) {
        self.status = status
        self.headers = headers
        self.body = body
    }

    /// The reason phrase that goes with the status.
    package var reasonPhrase: String { HTTPResponse.Status(code: status).reasonPhrase }
}
