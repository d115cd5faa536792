import ArgumentParser
import Foundation
import MartletTransport
import WireFormat

/// Prints the variables that the other commands read, for a server of this machine.
struct EnvironmentCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "env",
        abstract: "Wait for a server of this machine and print MARTLET_URL and MARTLET_TOKEN for the shell.",
        discussion: """
              martlet serve --data-dir data &
              eval "$(martlet env --data-dir data)"           bash, zsh
              martlet env --data-dir data --fish | source     fish

            The token is the one that the first start wrote into the data directory: an administrator's. For a server with a certificate
            of your own, give --ca-file: it is printed as MARTLET_CA_FILE.
            """
    )

    @Option(help: "The server's data directory.") var dataDir: String
    @Option(help: "Seconds to wait for the server.") var timeout = 30.0
    @Flag(help: "Print for the fish shell.") var fish = false
    @OptionGroup var trust: TrustOptions

    func validate() throws {
        guard timeout >= 0, timeout <= 3600 else { throw ValidationError("--timeout is from 0 to 3600 seconds") }
    }

    func run() async throws {
        let url = try await address()
        var lines = [assignment("MARTLET_URL", url)]
        lines += trust.variables.map { assignment($0.name, $0.value) }
        let tokenFile = dataDir + "/admin-token"
        if let token = try? String(contentsOfFile: tokenFile, encoding: .utf8) {
            lines.append(assignment("MARTLET_TOKEN", token.trimmingCharacters(in: .whitespacesAndNewlines)))
        } else {
            // Where eval runs the lines, a comment among them would not be seen.
            printError(
                "Note: \(tokenFile) cannot be read, so MARTLET_TOKEN is not set: set it to a token that you have. For a new "
                    + "administrator's token write 32 or more letters and digits into a file, and start the server with "
                    + "--set admin_token_file=FILE; \"A new administrator's token\" in docs/operations.md shows it."
            )
        }
        print(lines.joined(separator: "\n"))
    }

    /// The server's address, as soon as it is ready.
    private func address() async throws -> String {
        let end = ContinuousClock.now + .seconds(timeout)
        var reason = "\(dataDir)/address is not there"
        let transport = CurlTransport(connectionLimit: 1, security: trust.security)
        repeat {
            if let text = try? String(contentsOfFile: dataDir + "/address", encoding: .utf8) {
                let url = text.trimmingCharacters(in: .whitespacesAndNewlines)
                do {
                    let request = TransportRequest(method: "GET", url: url + Endpoints.readiness().path)
                    let answer = try await transport.send(request)
                    if answer.status == 200 { return url }
                    reason = "\(url) answers \(answer.status)"
                } catch let error as ClientError where error.isAboutTrust {
                    // Waiting changes nothing about it.
                    let isOtherHost = ["tls_wrong_host"].contains(error.code)
                    throw Failure(
                        "the server at \(url) runs, but: \(error)",
                        advice: isOtherHost
                            ? "Set MARTLET_URL to https:// with a host that the certificate names, and MARTLET_TOKEN to the text "
                                + "of \(dataDir)/admin-token." : TrustOptions.advice(error)
                    )
                } catch {
                    reason = "\(error)"
                }
            }
            try await Task.sleep(for: .milliseconds(50))
        } while ContinuousClock.now < end
        throw Failure(
            "no server is ready on the data directory \(dataDir): \(reason).\n"
                + "Start one with: martlet serve --data-dir \(dataDir)"
        )
    }

    private func assignment(_ name: String, _ value: String) -> String {
        let quoted = "'" + value.replacing("'", with: "'\\''") + "'"
        return fish ? "set -gx \(name) \(quoted)" : "export \(name)=\(quoted)"
    }
}
