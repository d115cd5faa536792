import ArgumentParser
import Foundation
import MartletClient
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

    /// Calls the API and gives the body of a good answer.
    func call(
        _ method: String,
        _ path: String,
        body: Data? = nil,
        contentType: String = "application/json"
    ) async throws -> Data {
        var headers = ["Content-Type": contentType]
        if let token = token ?? ProcessInfo.processInfo.environment["MARTLET_TOKEN"] {
            headers["Authorization"] = "Bearer " + token.trimmingCharacters(in: .whitespacesAndNewlines)
        }
        let request = TransportRequest(
            method: method,
            url: try Self.url(server) + path,
            headers: headers,
            body: body.map { .bytes($0) } ?? .none
        )
        let response: TransportResponse
        do {
            response = try await CurlTransport(connectionLimit: 1, security: trust.security).send(request)
        } catch {
            throw Failure("\(error)", isConnectionProblem: true, advice: Self.whereToLook)
        }
        guard (200..<300).contains(response.status) else {
            let problem = try? WireCoding.decode(ProblemDocument.self, from: response.body)
            var text =
                problem.map { PrintableText.escaped("\($0.title): \($0.detail) (\($0.code))", limit: 4000) }
                ?? Self.foreign(response, request.url)
            for field in (problem?.errors ?? []).prefix(100) where !field.pointer.isEmpty {
                text += "\n  " + PrintableText.escaped("\(field.pointer): \(field.detail)", limit: 1000)
            }
            throw Failure(
                text,
                isConnectionProblem: response.status == 503,
                advice: response.status == 401
                    ? whoAsks(hadToken: headers["Authorization"] != nil) : Self.wayOut(problem?.detail ?? "")
            )
        }
        return response.body
    }

    /// What an answer that is no problem document is: its own words where they are a line of plain text, else what stands in between.
    private static func foreign(_ response: TransportResponse, _ url: String) -> String {
        let note = note(in: response.body)
        return note.isEmpty
            ? ClientError(answer: response, url: url).message : "the server answered \(response.status)\(note)"
    }

    /// What an answer that is no problem document says in a line of plain text, such as "this port speaks HTTPS".
    private static func note(in body: Data) -> String {
        let text = String(decoding: body.prefix(200), as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
        let isPlain = !text.isEmpty && text.utf8.allSatisfy { $0 >= 0x20 && $0 < 0x7f } && !text.hasPrefix("<")
        return isPlain ? ": \(text)" : ""
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
    func show<Answer: Decodable>(
        _ data: Data,
        as type: Answer.Type,
        _ lines: (Answer) -> [String]
    ) throws {
        // A newer server may say what this program does not know: then as it came.
        guard !json, let answer = try? WireCoding.decode(type, from: data) else { return try show(data) }
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
