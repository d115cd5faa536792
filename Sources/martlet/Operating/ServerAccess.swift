import ArgumentParser
import Foundation
import MartletClient
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
                problem.map { "\($0.title): \($0.detail) (\($0.code))" }
                ?? "the server answered \(response.status)\(Self.note(in: response.body))"
            for field in problem?.errors ?? [] where !field.pointer.isEmpty {
                text += "\n  \(field.pointer): \(field.detail)"
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
        for line in lines(answer) { print(line) }
    }

    /// Prints the answer as it came, or indented.
    func show(_ data: Data) throws {
        if json {
            print(String(decoding: data, as: UTF8.self).trimmingCharacters(in: .newlines))
            return
        }
        let object = try JSONSerialization.jsonObject(with: data)
        let pretty = try JSONSerialization.data(
            withJSONObject: object,
            options: [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        )
        print(String(decoding: pretty, as: UTF8.self))
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
        reason = text
        self.advice = advice
        self.isConnectionProblem = isConnectionProblem
    }

    var description: String { advice.map { reason + "\n" + $0 } ?? reason }

    init(_ error: any Error) { self.init("\(error)") }
}
