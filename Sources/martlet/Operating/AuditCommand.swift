import ArgumentParser
import Foundation
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

    private struct Page: Decodable {
        struct Row: Decodable {
            var at: String
            var actor: String
            var actorName: String?
            var role: String
            var address: String
            var action: String
            var target: String
            var outcome: String
            var code: String?
        }
        var items: [Row]
    }

    func run() async throws {
        var path = "/v1/audit?limit=\(limit)"
        for (name, value) in [("actor", actor), ("outcome", outcome), ("since", since)] {
            if let value { path += "&\(name)=\(escaped(value))" }
        }
        let data = try await access.call("GET", path)
        if access.json { return try access.show(data) }
        for row in try WireCoding.decode(Page.self, from: data).items {
            let method = row.action.prefix { $0 != " " }
            let who = row.actorName.map { "\($0) (\(row.actor))" } ?? row.actor
            let line =
                "\(row.at)  \(row.outcome)\(row.code.map { " " + $0 } ?? "")  \(method) \(row.target)  \(who), \(row.role), from \(row.address)"
            print(Terminal.printable(line))
        }
    }
}
