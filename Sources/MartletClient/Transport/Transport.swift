public import Foundation

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
    /// Seconds after which the request fails.
    public var timeoutSeconds: Double

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

/// How requests reach the server.
public protocol Transport: Sendable {
    /// Sends one request.
    ///
    /// - Returns: The answer, whatever its status.
    /// - Throws: ``ClientError`` with code `network` when there is no answer.
    func send(_ request: TransportRequest) async throws -> TransportResponse
}
