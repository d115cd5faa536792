import ArgumentParser
import Foundation
import MartletOperator
import MartletTransport
import WireFormat

struct HealthCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "health",
        abstract: "Whether a server answers: status 0 when it does, 1 when not; for health checks of containers.",
        discussion: """
            With --data-dir the server of this machine is asked where it says that it listens. One that speaks TLS is asked in plain HTTP \
            and says so itself, whoever its certificate is for; --ready takes --server and a certificate that is trusted.
            """
    )

    @OptionGroup var access: ServerAccess
    @Option(help: "The data directory of a server of this machine (or MARTLET_DATA_DIR); --server goes before it.")
    var dataDir: String?
    @Flag(help: "Ask whether recovery is done and disk and database can be written, not only whether it answers.")
    var ready = false

    func run() async throws {
        guard !ready, access.server == nil, let url = localURL() else {
            return try access.show(await access.answer(to: ready ? Endpoints.readiness() : Endpoints.health()).bytes)
        }
        let request = TransportRequest(method: "GET", url: url + Endpoints.health().path, headers: [:], body: .none)
        let answer: TransportResponse
        do { answer = try await CurlTransport(connectionLimit: 1).send(request) } catch {
            throw Failure("\(error)", isConnectionProblem: true)
        }
        let speaksTLS = answer.status == 400 && String(decoding: answer.body, as: UTF8.self).contains("speaks HTTPS")
        guard speaksTLS || answer.status == 200 else {
            throw Failure("the server answered \(answer.status)", isConnectionProblem: true)
        }
        try access.show(speaksTLS ? Data(#"{"status":"ok"}"#.utf8) : answer.body)
    }

    /// Where the server of a data directory listens, for plain HTTP; `nil` where no directory is named.
    private func localURL() -> String? {
        let environment = ProcessInfo.processInfo.environment
        guard let directory = dataDir ?? environment["MARTLET_DATA_DIR"] else { return nil }
        guard let text = try? String(contentsOfFile: directory + "/address", encoding: .utf8) else {
            // It recovers: its port answers already, if it is the usual one.
            return environment["MARTLET_URL"] ?? "http://127.0.0.1:8080"
        }
        return text.trimmingCharacters(in: .whitespacesAndNewlines)
            .replacing("https://", with: "http://")
            .replacing("//0.0.0.0:", with: "//127.0.0.1:")
            .replacing("//[::]:", with: "//[::1]:")
    }
}
