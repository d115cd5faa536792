import ArgumentParser
import MartletOperator
import StrictJSON
import WireFormat

struct HelperDomainCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "domain",
        abstract: "The populations for which a helper sums, with the helper's own policy.",
        subcommands: [Create.self, Show.self, Change.self, Token.self, Revoke.self]
    )

    /// What a session may ask for at most, or must at least.
    struct PolicyOptions: ParsableArguments {
        @Option(help: "The least number of updates in a sum.") var minimum: Int?
        @Option(help: "The most updates in a sum.") var maximum: Int?
        @Option(help: "The least noise over a contribution's norm.") var leastNoise: Double?
        @Option(help: "The most sums of a run that one device may be in.") var maxParticipations: Int?
        @Option(help: "The most coordinates of a sum.") var maxCoordinates: Int?
        @Option(help: "How many sessions may be open at a time.") var openSessions: Int?
        @Option(help: "How many sessions the domain may have in its life.") var sessions: Int?

        /// The fields that were given.
        var fields: [String: JSONValue] {
            let numbers = [
                "minimum": minimum, "maximum": maximum, "max_participations": maxParticipations,
                "max_coordinates": maxCoordinates, "open_sessions": openSessions, "sessions": sessions,
            ]
            var fields = numbers.compactMapValues { $0.map { JSONValue.integer($0) } }
            fields["least_noise"] = leastNoise.map { JSONValue($0) }
            return fields
        }

        /// A whole policy, with defaults for what was not given.
        func policy(hasBudget: Bool) -> HelperPolicy {
            let known = HelperPolicy(leastNoise: hasBudget ? 0.5 : 0)
            return HelperPolicy(
                minimum: minimum ?? known.minimum,
                maximum: maximum ?? known.maximum,
                leastNoise: leastNoise ?? known.leastNoise,
                maxParticipations: maxParticipations ?? known.maxParticipations,
                maxCoordinates: maxCoordinates ?? known.maxCoordinates,
                openSessions: openSessions ?? known.openSessions,
                sessions: sessions ?? known.sessions
            )
        }
    }

    struct Create: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Make a domain.")
        @OptionGroup var access: ServerAccess
        @OptionGroup var policy: PolicyOptions
        @Argument(help: "Its name, which session documents and the ledger hold.") var name: String
        @Option(parsing: .unconditional, help: "The budget's epsilon; without it sums have no noise.") var epsilon:
            Double?
        @Option(parsing: .unconditional, help: "The budget's delta; 1e-5 where it is not given.") var delta: Double?

        func validate() throws {
            for (name, value) in [("epsilon", epsilon), ("delta", delta)] where !(value?.isFinite ?? true) {
                throw ValidationError("--\(name) must be a finite number")
            }
            guard delta == nil || epsilon != nil else {
                throw ValidationError("--delta belongs to a budget: give its --epsilon too")
            }
        }

        func run() async throws {
            let request = HelperDomainRequest(
                name: name,
                budget: epsilon.map { HelperBudget(epsilon: $0, delta: delta ?? 1e-5) },
                policy: policy.policy(hasBudget: epsilon != nil)
            )
            let answer = try await access.answer(to: HelperEndpoints.createDomain(), request)
            try access.show(answer) {
                HelperSentences.domain($0)
                    + [
                        "let a server in with: martlet helper domain token \(Terminal.printable(name)) --server-id srv_1"
                    ]
            }
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "One domain, or all.")
        @OptionGroup var access: ServerAccess
        @Argument(help: "Its name.") var name: String?

        func run() async throws {
            guard let name else {
                return try access.show(await access.answer(to: HelperEndpoints.domains())) {
                    $0.items.flatMap(HelperSentences.domain)
                }
            }
            try access.show(
                await access.answer(to: HelperEndpoints.domain(DomainReference(name))),
                HelperSentences.domain
            )
        }
    }

    struct Change: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Change a policy; lower the budget's epsilon, or raise it with a reason."
        )
        @OptionGroup var access: ServerAccess
        @OptionGroup var policy: PolicyOptions
        @Argument(help: "Its name.") var name: String
        @Option(parsing: .unconditional, help: "The new epsilon.") var epsilon: Double?
        @Option(help: "Why epsilon is raised; stays in the ledger.") var reason: String?

        func run() async throws {
            let fields = policy.fields
            let change = HelperDomainChange(
                epsilon: epsilon,
                reason: reason,
                policy: fields.isEmpty ? nil : .object(fields)
            )
            let target = HelperEndpoints.changeDomain(DomainReference(name))
            try access.show(await access.answer(to: target, change), HelperSentences.domain)
        }
    }

    struct Token: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Make a server's token of a domain; its text is shown this once."
        )
        @OptionGroup var access: ServerAccess
        @Argument(help: "The domain's name.") var domain: String
        @Option(name: .customLong("server-id"), help: "The server's id, which session documents hold.")
        var serverID: String
        @Option(help: "Seconds until it stops working.") var expiresIn: Double?

        func run() async throws {
            let target = HelperEndpoints.createToken(DomainReference(domain))
            let request = HelperTokenRequest(server: serverID, expiresInS: expiresIn)
            try access.show(await access.answer(to: target, request).bytes)
        }
    }

    struct Revoke: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "End a server's token at once.")
        @OptionGroup var access: ServerAccess
        @Argument(help: "Its id.") var token: String

        func run() async throws {
            _ = try await access.answer(to: HelperEndpoints.revokeToken(TokenReference(token)))
            print("revoked \(token)")
        }
    }
}
