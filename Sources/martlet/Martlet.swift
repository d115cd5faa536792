import ArgumentParser
import WireFormat

#if canImport(Glibc)
import Glibc
#endif

/// The one binary: server, clients, operator's tools.
@main
struct Martlet: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "martlet",
        abstract: "Federated learning of language models with a privacy budget that holds.",
        discussion: """
            A first look, with nothing to set up:

              martlet demo --keep           a whole private run, in a minute or two

            A server of your own, then a run. MARTLET_URL and MARTLET_TOKEN say which
            server, and who asks:

              martlet serve --data-dir data &
              eval "$(martlet env --data-dir data)"
              martlet population create keyboards --epsilon 8 --delta 1e-5
              martlet population token keyboards --uses 10000
              martlet run create Examples/keyboard/run.yaml --start

            On each device, with the token that was printed; on another machine with
            --server https://HOST:PORT too:

              martlet client --enrollment-token TOKEN --data FILE --state-dir DIR

            And to look at it:

              martlet run list
              martlet run watch RUN         follows a run to its end
              martlet run explain RUN       what happened and why, in sentences
              martlet run plot RUN -o curve.svg

            The dashboard is at the server's address, the API's reference at /docs.
            """,
        version: ProductVersion.current,
        subcommands: [
            ServeCommand.self, EnvironmentCommand.self, ClientCommand.self, FleetCommand.self, RunCommand.self,
            PopulationCommand.self,
            SuggestCommand.self, PersonalizeCommand.self, CleanCommand.self, ExportCommand.self,
            DemoCommand.self, TokenCommand.self, AuditCommand.self, ConfigCommand.self,
            CompletionsCommand.self, HealthCommand.self, PrivacyCommand.self, TrainerCommand.self,
            BackupCommand.self, RestoreCommand.self, DoctorCommand.self, HelperCommand.self,
        ]
    )

    /// On the main thread and before there are others: whichever thread has asked for memory has an arena of its own already.
    @MainActor static func main() async {
        let words = CommandLine.arguments.dropFirst().prefix(2)
        if words.first == "serve" || words == ["helper", "serve"] { MemoryArenas.limit() }
        await runToTheEnd()
    }

    /// Runs the command that the arguments name; its library would print an error's words as they are.
    private static func runToTheEnd() async {
        do {
            var command = try await asyncParseAsRoot()
            if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
        } catch {
            let error: any Error = error is DecodingError ? Failure(error) : error
            let code = exitCode(for: error)
            // What a command that was parsed says itself is not helped by how to call the whole program.
            let message = (error as? ValidationError).map { "Error: \($0.message)" } ?? fullMessage(for: error)
            if !message.isEmpty {
                if code.isSuccess { print(message) } else { printError(message) }
            }
            fflush(nil)
            Glibc.exit(code.rawValue)
        }
    }
}
