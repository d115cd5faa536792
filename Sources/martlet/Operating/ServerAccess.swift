import ArgumentParser
import Foundation
import MartletOperator
import MartletTransport
import StrictJSON
import WireFormat

/// Where the server is and who asks: flags first, then the environment.
struct ServerAccess: ParsableArguments {
    @Option(help: "The server's URL (or MARTLET_URL).") var server: String?
    @Option(help: "An administrator's token (or MARTLET_TOKEN).") var token: String?
    @OptionGroup var trust: TrustOptions
    @Flag(help: "Print the server's JSON.") var json = false

    static func url(_ flag: String?) throws -> String {
        let text = flag ?? ProcessInfo.processInfo.environment["MARTLET_URL"] ?? "http://127.0.0.1:8080"
        guard let url = URL(string: text), url.host != nil, ["http", "https"].contains(url.scheme) else {
            throw ValidationError("the server's URL must be like http://127.0.0.1:8080, not \(text)")
        }
        return text.hasSuffix("/") ? String(text.dropLast()) : text
    }

    /// Asks the server as its operator.
    ///
    /// - Parameter ask: Asks it.
    /// - Returns: What `ask` gives.
    /// - Throws: ``Failure`` for what the server refuses, and where it does not answer.
    func ask<Answer>(_ ask: (OperatorClient) async throws -> Answer) async throws -> Answer {
        let token = token ?? ProcessInfo.processInfo.environment["MARTLET_TOKEN"]
        let url = try Self.url(server)
        do {
            let transport = CurlTransport(connectionLimit: 1, security: trust.security)
            return try await ask(OperatorClient(server: url, token: token, transport: transport))
        } catch let error as OperatorError {
            throw Failure(
                error.description,
                isConnectionProblem: error.status == 503,
                advice: error.status == 401 ? whoAsks(hadToken: token != nil) : Self.wayOut(error.detail ?? "")
            )
        } catch let error as ClientError where error.isAboutTrust {
            throw Failure(error.description, advice: TrustOptions.advice(error))
        } catch {
            // An answer that cannot be read came from somewhere.
            if error is DecodingError || error is Failure { throw error }
            // A handshake that failed found somebody there.
            let isTLS = (error as? ClientError)?.code.hasPrefix("tls_") ?? false
            throw Failure("\(error)", isConnectionProblem: true, advice: isTLS ? nil : Self.whereToLook)
        }
    }

    /// Asks an endpoint that takes no body.
    func answer<Answer: Sendable>(
        to target: RequestTarget<NoDocument, Answer>
    ) async throws -> AnswerDocument<Answer> {
        try await ask { try await $0.answer(to: target) }
    }

    /// Asks an endpoint that takes a document.
    func answer<Body: Encodable, Answer: Sendable>(
        to target: RequestTarget<Body, Answer>,
        _ body: Body
    ) async throws -> AnswerDocument<Answer> {
        try await ask { try await $0.answer(to: target, body) }
    }

    /// What a dry run warns of, a line each; none where the server refuses it, which the call that follows says too.
    ///
    /// - Parameters:
    ///   - runFile: The run file's bytes.
    ///   - type: Their media type.
    /// - Returns: The lines.
    func warnings(of runFile: Data, _ type: String) async -> [String] {
        let target = Endpoints.createRun().with("dry_run", true).answering(RunPlan.self)
        let answer = try? await ask { try await $0.answer(to: target, .bytes(runFile), contentType: type) }
        guard let answer, let plan = try? answer.decoded() else { return [] }
        return plan.warnings.map { "warning: \($0)" }
    }

    private static let whereToLook = """
        Is the server running, and there? MARTLET_URL or --server says where; martlet serve --data-dir data starts one.
        """

    /// What makes or shows the thing that is not there.
    private static func wayOut(_ detail: String) -> String? {
        if let name = detail.firstMatch(of: /^no population '([A-Za-z0-9._-]+)'/)?.1 {
            return "Make it with: martlet population create \(name) --epsilon 8"
        }
        if detail.hasPrefix("no run '") { return "martlet run list shows the runs of this server." }
        return nil
    }

    private func whoAsks(hadToken: Bool) -> String {
        let source = token != nil ? "--token" : "MARTLET_TOKEN"
        return
            (hadToken
            ? "\(source) holds another server's token, or an old one." : "No token was given: set MARTLET_TOKEN.")
            + " On the server's machine: eval \"$(martlet env --data-dir DIR)\"; elsewhere ask its administrator for one."
    }

    /// Prints the answer as it came, or as lines for people.
    func show<Answer: Decodable>(_ document: AnswerDocument<Answer>, _ lines: (Answer) -> [String]) throws {
        // A newer server may say what this program does not know: then as it came.
        guard !json, let answer = try? document.decoded() else { return try show(document.bytes) }
        for line in lines(answer) { print(Terminal.printable(line)) }
    }

    /// Prints JSON as it came.
    ///
    /// - Throws: ``Failure`` for an answer that is none: its lines could pass for this program's.
    func showDocument(_ data: Data) throws {
        guard (try? JSONValue(parsing: Array(data))) != nil else { throw Self.noDocument }
        Terminal.document(String(decoding: data, as: UTF8.self).trimmingCharacters(in: .newlines))
    }

    private static let noDocument = Failure(
        "the answer is no JSON: something between this machine and the server has changed it, or it is another server"
    )

    /// Prints the answer as it came, or indented.
    func show(_ data: Data) throws {
        if json { return try showDocument(data) }
        guard let document = try? JSONValue(parsing: Array(data)) else { throw Self.noDocument }
        Terminal.document(document.prettyText)
    }
}

/// An error that ends the command with status 1 and one message.
struct Failure: Error, CustomStringConvertible {
    /// What went wrong, and where.
    let reason: String
    /// What to do about it, where that can be said.
    let advice: String?
    /// Whether the server could not be reached or was not ready, so that a later try may succeed.
    let isConnectionProblem: Bool

    init(_ text: String, isConnectionProblem: Bool = false, advice: String? = nil) {
        // Whoever's words are in it, they stay words.
        reason = PrintableText.escapedLines(text)
        self.advice = advice.map { PrintableText.escapedLines($0) }
        self.isConnectionProblem = isConnectionProblem
    }

    var description: String { advice.map { reason + "\n" + $0 } ?? reason }

    init(_ error: any Error) {
        if let error = error as? DecodingError { self.init(error) } else { self.init("\(error)") }
    }

    /// Names the place of what does not fit, and nothing of what stands there.
    private init(_ error: DecodingError) {
        let context: DecodingError.Context? =
            switch error {
            case .typeMismatch(_, let context), .valueNotFound(_, let context), .dataCorrupted(let context): context
            case .keyNotFound(let key, let context):
                .init(codingPath: context.codingPath + [key], debugDescription: "")
            @unknown default: nil
            }
        let path = (context?.codingPath ?? []).map { key in "/" + (key.intValue.map(String.init) ?? key.stringValue) }
        self.init(
            "a document does not fit"
                + (path.isEmpty
                    ? ": it is no JSON"
                    : ": " + PrintableText.escaped(path.joined(), limit: 300)
                        + " is missing, or is not what is known there"),
            advice: "It is an answer of a server of another version, or a damaged file."
        )
    }
}
