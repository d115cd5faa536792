public import Foundation
import WireFormat

/// One HTTP request of the client.
public struct TransportRequest: Sendable {
    /// What is sent after the head.
    public enum Body: Sendable {
        /// Nothing.
        case none
        /// Bytes in memory.
        case bytes(Data)
        /// A file from an offset on, read while it is sent.
        case file(path: String, offset: Int = 0)
    }
    /// The method.
    public var method: String
    /// The absolute URL.
    public var url: String
    /// Header fields.
    public var headers: [String: String]
    /// The body.
    public var body: Body
    /// Where the answer's body goes: to this file when the status is 200, else to memory.
    public var destination: String?
    /// Where in the destination a part goes, the body of an answer with status 206; one that begins elsewhere is an error.
    public var destinationOffset = 0
    /// SHA-256, in hexadecimal, of the file that is asked for; `nil` where it is not known.
    ///
    /// Only an answer that names it goes to the destination (``TransportResponse/names(sha256:)``): whatever else comes with status
    /// 200 is somebody's who answers in the server's place, and what has arrived before stays.
    public var fileSHA256: String?
    /// Bytes of the answer's body that are taken, at most, a file's beginning before `destinationOffset` included; an answer
    /// with more is an error.
    public var byteLimit = 64 << 20
    /// Seconds without a byte in either direction after which the request fails; progress extends it, however slow the link.
    public var timeoutSeconds: Double
    /// Seconds after which the request fails, however much still moves; none by default.
    public var longestSeconds: Double?
    /// Seconds for an answer that is kept in memory, from when all of the request was sent: one that drips for ever ends.
    ///
    /// Where the answer goes to a file its caller has to set ``longestSeconds``, from the file's size or its deadline.
    public var answerSeconds = 900.0
    /// Whether a file that is sent may be reached through a symbolic link.
    public var followsLinks = true

    /// Is told what has moved, from any thread, each time that something has; it must return at once.
    public var onProgress: (@Sendable (TransferProgress) -> Void)?

    /// Creates a request.
    public init(
        method: String,
        url: String,
        headers: [String: String] = [:],
        body: Body = .none,
        destination: String? = nil,
        timeoutSeconds: Double = 120
    ) {
        self.method = method
        self.url = url
        self.headers = headers
        self.body = body
        self.destination = destination
        self.timeoutSeconds = timeoutSeconds
    }
}

extension TransportRequest {
    /// What transports send as `User-Agent`.
    package static var userAgent: String { ProductVersion.userAgent }
}

/// How much of a request's and its answer's bodies has moved.
public struct TransferProgress: Sendable, Equatable {
    /// Bytes of the request's body that were handed to the network.
    public var sentByteCount: Int
    /// Bytes of the answer's body that have come.
    public var receivedByteCount: Int

    /// Names two numbers of bytes.
    public init(sentByteCount: Int = 0, receivedByteCount: Int = 0) {
        self.sentByteCount = sentByteCount
        self.receivedByteCount = receivedByteCount
    }
}

/// The answer to a request.
public struct TransportResponse: Sendable {
    /// The status code.
    public var status: Int
    /// Header fields, names in lower case.
    public var headers: [String: String]
    /// The body; empty where it went to a file.
    public var body: Data

    /// Creates a response.
    public init(status: Int, headers: [String: String] = [:], body: Data = Data()) {
        self.status = status
        self.headers = headers
        self.body = body
    }
}

extension TransportResponse {
    /// Whether the answer says that it is the file with this SHA-256, or a part of it: in `Repr-Digest`, in `Content-Digest` of the
    /// whole, or as its `ETag`, which caches and proxies pass on.
    public func names(sha256: String) -> Bool {
        if let digest = FileDigestField.whole(of: self) { return digest == sha256 }
        guard let tag = headers["etag"] else { return false }
        return tag == "\"\(sha256)\"" || tag == "W/\"\(sha256)\""
    }
}

/// How requests reach the server.
///
/// An app may bring its own. Martlet's tests hold every transport to these rules: redirects are not followed, so that a token
/// reaches the configured server only; progress extends the time-out; no more than ``TransportRequest/byteLimit`` bytes are taken;
/// a body goes to ``TransportRequest/destination`` for status 200 and 206 only, only where the answer names
/// ``TransportRequest/fileSHA256``, and never through a link; an answer that was cut is no answer; a cancelled task ends at once.
public protocol Transport: Sendable {
    /// Sends one request.
    ///
    /// - Returns: The answer, whatever its status.
    /// - Throws: ``ClientError`` with code `network` when there is no answer, and with one of ``ClientError/localCodes`` when
    ///   this device's own files fail; `CancellationError`.
    func send(_ request: TransportRequest) async throws -> TransportResponse
}
