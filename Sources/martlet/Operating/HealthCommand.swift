import ArgumentParser
import Foundation

struct HealthCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "health",
        abstract: "Whether a server answers: status 0 when it does, 1 when not; for health checks of containers."
    )

    @OptionGroup var access: ServerAccess
    @Flag(help: "Ask whether recovery is done and disk and database can be written, not only whether it answers.")
    var ready = false

    func run() async throws {
        try access.show(await access.call("GET", ready ? "/readyz" : "/healthz"))
    }
}
