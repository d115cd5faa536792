import StrictJSON
package import WireFormat

/// Why the client could not go on.
public struct ClientError: Error, Sendable, CustomStringConvertible {
    /// `network`, `foreign_answer`, `server_invalid`, `digest_mismatch`, `model_mismatch`, `privacy_refused`, `already_running`
    /// (another attempt with the same state is under way), one of ``localCodes``, or the server's code.
    public var code: String
    /// What happened and what to do.
    public var message: String
    /// The status of the answer, when there was one.
    public var status: Int?

    /// The code of an answer that is none of a Martlet server.
    public static let foreignAnswer = "foreign_answer"
    /// Nothing came from the server.
    package static let network = "network"
    /// A handshake came to nothing, for a reason that has no code of its own: the server may have been ended in it.
    package static let tlsFailed = "tls_failed"
    /// Another process, or another client of this one, has the state directory.
    package static let stateLocked = "state_locked"
    /// A file of this device is not what was written.
    package static let stateDamaged = "state_damaged"
    /// Codes of what is wrong on this device: `disk_full`, `storage` (the file system refuses), `state_damaged`,
    /// `state_locked` (another process has the state directory).
    public static let localCodes = ["disk_full", "storage", "state_damaged", "state_locked"]

    /// A second attempt beside one that is under way: two would answer one assignment twice.
    package static var alreadyRunning: ClientError {
        ClientError(
            code: "already_running",
            message:
                "a client with this state takes part already; wait until run() or participateOnce() has returned, or "
                + "cancel its task"
        )
    }

    /// Creates an error.
    ///
    /// - Parameters:
    ///   - code: As ``code`` lists them.
    ///   - message: May quote a server or a file: what acts on a terminal is escaped.
    ///   - status: Of the answer, if there was one.
    public init(code: String, message: String, status: Int? = nil) {
        self.code = code
        self.message = PrintableText.escaped(message)
        self.status = status
    }

    /// Whether the same request may succeed later: there was no answer, or one that is not a server's last word.
    public var isTemporary: Bool {
        if code == Self.network || code == Self.foreignAnswer { return true }
        return status != nil && RefusalVerdict(code: code) == nil
    }

    /// Whether this client can do nothing any more until its owner or an operator has acted.
    public var endsClient: Bool {
        if status == nil {
            return ["not_registered", "registration_refused", "storage", "state_damaged", "state_locked"].contains(code)
        }
        return verdict == .clientIsOut
    }

    /// Code and message.
    public var description: String { "\(message) (\(code))" }

    /// Whether the server cannot be trusted as it is, or does not speak TLS: the same request fails again until somebody acts.
    package var isAboutTrust: Bool { code.hasPrefix("tls_") && code != Self.tlsFailed }

    /// What the server's refusal ends.
    package var verdict: RefusalVerdict? { status == nil ? nil : RefusalVerdict(code: code) }
}

extension ProblemAnswer {
    /// The problem document of a Martlet server, whose status is the answer's; `nil` for anything else.
    package init?(_ response: TransportResponse) {
        guard response.mediaType == "application/problem+json", response.body.count <= 1 << 20,
            let document = try? JSONValue.parse(Array(response.body)), case .object(let fields) = document,
            fields["status"].map({ $0 == .integer(response.status) }) ?? true,
            let problem = try? ProblemAnswer.read(document)
        else { return nil }
        self = problem
    }
}

extension ClientError {
    /// What an answer that is no success says: a server's refusal where it is a problem document, else the words of whatever
    /// stands between this device and the server.
    package init(answer response: TransportResponse, url: String = "") {
        if let problem = ProblemAnswer(response) {
            self.init(
                code: problem.code,
                message: problem.detail ?? "the server answers \(response.status)",
                status: response.status
            )
        } else if response.mediaType == "application/problem+json", response.body.isEmpty {
            // The answer to HEAD says nothing more.
            self.init(
                code: "http_\(response.status)",
                message: "the server answers \(response.status)",
                status: response.status
            )
        } else {
            self.init(
                code: Self.foreignAnswer,
                message: ForeignAnswer.sentence(response, url: url),
                status: response.status
            )
        }
    }

    /// An answer that should be a server's and cannot be read as one.
    package static func foreign(_ response: TransportResponse, url: String) -> ClientError {
        ClientError(
            code: foreignAnswer,
            message: ForeignAnswer.sentence(response, url: url),
            status: response.status
        )
    }
}

extension TransportResponse {
    /// Whether it says that it is a page for people, and so no file of a server's.
    var isPage: Bool { ["text/html", "application/xhtml+xml", "text/plain"].contains(mediaType) }

    /// Whether it says that it is a document of the protocol's.
    fileprivate var isDocument: Bool {
        ["application/json", "application/problem+json", "application/octet-stream"].contains(mediaType)
    }

    /// The media type without its parameters, in lower case; empty where there is none.
    package var mediaType: String {
        (headers["content-type"] ?? "").prefix { $0 != ";" }.trimmingPrefix(" ").lowercased()
            .split(separator: " ").first.map(String.init) ?? ""
    }
}

extension ClientError {
    /// Whether a server, or this device in its place, said this.
    package func `is`(_ code: ProblemCode) -> Bool { self.code == code.rawValue }

    /// Whether a file of this device is not what was written.
    package var isStateDamaged: Bool { code == Self.stateDamaged }
}

extension TransportRequest {
    /// Whether an answer with status 200 or 206 is the file that was asked for, by its head.
    package func takes(_ head: TransportResponse) -> Bool {
        fileSHA256.map { head.names(sha256: $0) } ?? !head.isPage
    }

    /// Whether an answer cannot be a server's, by its head.
    package func isForeign(_ head: TransportResponse) -> Bool {
        if let fileSHA256, (200..<300).contains(head.status) { return !head.names(sha256: fileSHA256) }
        return !head.isDocument
    }
}
