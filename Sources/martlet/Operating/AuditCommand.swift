import ArgumentParser
import MartletOperator
import WireFormat

/// What operators did, newest first.
struct AuditCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "audit",
        abstract: "What operators did: when, who, from where, what, with what result."
    )

    @OptionGroup var access: ServerAccess
    @Option(help: "How many rows.") var limit = 50
    @Option(help: "Only of this token's id.") var actor: String?
    @Option(help: "Only done or refused ones.") var outcome: String?
    @Option(help: "Only from this time on, such as 2026-01-31T08:00:00Z.") var since: String?

    func run() async throws {
        let target = Endpoints.audit().with("limit", limit).with("actor", actor).with("outcome", outcome)
            .with("since", since)
        let answer = try await access.answer(to: target)
        if access.json { return try access.show(answer.bytes) }
        for row in try answer.decoded().items {
            let method = row.action.prefix { $0 != " " }
            let who = row.actorName.map { "\($0) (\(row.actor))" } ?? row.actor
            let line =
                "\(row.at)  \(row.outcome)\(row.code.map { " " + $0 } ?? "")  \(method) \(row.target)  \(who), \(row.role), from \(row.address)"
            print(Terminal.printable(line))
        }
    }
}
