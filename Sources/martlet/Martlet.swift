import ArgumentParser

/// The one binary: server, clients, operator's tools.
@main
struct Martlet: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "martlet",
        abstract: "Federated learning of language models with a privacy budget that holds.",
        discussion: """
            A first look, with nothing to set up:

              martlet demo --keep                    a whole private run with virtual clients, in a minute or two

            A server of your own, then a run (MARTLET_URL and MARTLET_TOKEN say which server and who asks):

              martlet serve --data-dir /var/lib/martlet
              export MARTLET_URL=http://127.0.0.1:8080 MARTLET_TOKEN=$(cat /var/lib/martlet/admin-token)
              martlet population create keyboards --epsilon 8 --delta 1e-5
              martlet run create Examples/keyboard.yaml --start
              martlet population token keyboards --uses 10000      a token that enrolls clients

            On each device, and then for you to look at:

              martlet client --enrollment-token TOKEN --data messages.txt --state-dir ~/.martlet
              martlet run list
              martlet run watch RUN
              martlet run explain RUN
              martlet run plot RUN -o curve.svg

            The dashboard is at the server's address, the API's reference at /docs.
            """,
        version: "0.1.0",
        subcommands: [
            ServeCommand.self, ClientCommand.self, FleetCommand.self, RunCommand.self, PopulationCommand.self,
            SuggestCommand.self, DemoCommand.self, TokenCommand.self, AuditCommand.self, ConfigCommand.self,
            CompletionsCommand.self, HealthCommand.self, PrivacyCommand.self,
        ]
    )
}
