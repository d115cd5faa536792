import ArgumentParser
import MartletOperator
import WireFormat

struct HelperCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "helper",
        abstract: "The second party of sums that nobody can look into alone, for its operator.",
        discussion: """
            A helper adds up masks that devices seal to it, and adds noise of its own. It runs on another machine, in other
            hands than the server, with a directory, tokens and a certificate of its own:

              martlet helper serve --data-dir helper --listen 0.0.0.0:8443 --tls-certificate C --tls-key K &
              martlet helper domain create keyboards --epsilon 8 --minimum 50
              martlet helper domain token keyboards --server-id srv_1
              martlet helper keys > helper.pub     what devices pin

            A server trains through a helper if its settings and the run file name one: docs/helper.md says how.
            """,
        subcommands: [
            HelperServeCommand.self, HelperKeysCommand.self, HelperDomainCommand.self, HelperLedgerCommand.self,
            HelperStatusCommand.self,
        ]
    )
}

struct HelperKeysCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "keys",
        abstract: "The key that devices pin, as PEM; give it to them by another way than through the server."
    )
    @OptionGroup var access: ServerAccess

    func run() async throws {
        let answer = try await access.answer(to: HelperEndpoints.key())
        if access.json { return try access.show(answer.bytes) }
        print(try answer.decoded().pem, terminator: "")
    }
}

struct HelperStatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Domains, what they have spent, their open sessions, and whether the ledger is in doubt."
    )
    @OptionGroup var access: ServerAccess

    func run() async throws {
        try access.show(await access.answer(to: HelperEndpoints.status())) { status in
            ["helper \(status.version), ledger's second record: \(status.ledgerRecord)"]
                + (status.halt.map { ["no session is granted: \($0)"] } ?? [])
                + status.domains.flatMap(HelperSentences.domain)
        }
    }
}

struct HelperLedgerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ledger",
        abstract: "What domains were charged with.",
        subcommands: [Export.self, Acknowledge.self]
    )

    struct Export: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "A domain's ledger, for martlet privacy verify-ledger."
        )
        @OptionGroup var access: ServerAccess
        @Argument(help: "Its name.") var domain: String

        func run() async throws {
            try access.showDocument(await access.answer(to: HelperEndpoints.ledger(DomainReference(domain))).bytes)
        }
    }

    struct Acknowledge: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "End an alarm of the ledger: what was lost is charged again."
        )
        @OptionGroup var access: ServerAccess
        @Option(help: "Why; stays in the ledger.") var reason: String

        func run() async throws {
            let body = HelperAcknowledgement(reason: reason)
            try access.show(await access.answer(to: HelperEndpoints.acknowledge(), body)) { status in
                ["ledger's second record: \(status.ledgerRecord)"] + status.domains.flatMap(HelperSentences.domain)
            }
        }
    }
}

/// Answers of a helper as lines for people.
enum HelperSentences {
    static func domain(_ domain: HelperDomainView) -> [String] {
        let name = Terminal.printable(domain.name)
        let policy = domain.policy
        let sessions = "\(domain.openSessions) open of \(domain.sessions) sessions"
        guard let budget = domain.budget else {
            return [
                "\(name): no noise and no (epsilon, delta), sums of \(policy.minimum) to \(policy.maximum), \(sessions)"
            ]
        }
        func short(_ value: Double) -> String { Readable.rounded(value, 3) }
        return [
            "\(name): epsilon \(short(budget.epsilon)) at delta \(budget.delta), \(short(budget.spentEpsilon)) spent, "
                + "\(short(budget.reservedEpsilon)) reserved; noise of \(policy.leastNoise) at least, sums of \(policy.minimum) to "
                + "\(policy.maximum), \(sessions)"
        ]
    }
}
