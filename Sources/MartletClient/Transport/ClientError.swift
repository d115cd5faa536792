import WireFormat

/// Why the client could not go on.
public struct ClientError: Error, Sendable, CustomStringConvertible {
    /// `network`, `protocol`, `model_mismatch`, `privacy_refused`, `storage`, or the server's code.
    public var code: String
    /// What happened and what to do.
    public var message: String
    /// The server's status, when it answered.
    public var status: Int?

    /// Creates an error.
    public init(code: String, message: String, status: Int? = nil) {
        self.code = code
        self.message = message
        self.status = status
    }

    /// Whether the same request may succeed later.
    public var isTemporary: Bool {
        guard let status else { return code == "network" }
        return status == 408 || status == 429 || status >= 500
    }

    /// Code and message.
    public var description: String { "\(message) (\(code))" }
}

extension ClientError {
    /// What a server's refusal says, where it says it as a problem document.
    init(answer response: TransportResponse) {
        let problem = try? WireCoding.decode(ProblemDocument.self, from: response.body)
        self.init(
            code: problem?.code ?? "http_\(response.status)",
            message: problem?.detail ?? "the server answered \(response.status)",
            status: response.status
        )
    }
}
