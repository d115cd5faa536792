import ArgumentParser

/// The one binary: server, clients, operator's tools.
@main
struct Martlet: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "martlet",
        abstract: "Federated learning of language models with a privacy budget that holds.",
        discussion: """
            martlet demo                         a whole run with virtual clients, in a minute or two
            martlet serve --data-dir DIR         the server
            martlet population create NAME --epsilon 8 --delta 1e-5
            martlet population token NAME        a token that enrolls clients
            martlet run create run.yaml          then: martlet run start RUN, martlet run watch RUN
            martlet client --data FILE …         one device
            """,
        version: "0.1.0",
        subcommands: [
            ServeCommand.self, ClientCommand.self, FleetCommand.self, RunCommand.self, PopulationCommand.self,
            SuggestCommand.self, DemoCommand.self, TokenCommand.self, AuditCommand.self,
        ]
    )
}
