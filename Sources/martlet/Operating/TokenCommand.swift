import ArgumentParser
import MartletOperator
import WireFormat

struct TokenCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "token",
        abstract: "Who may operate the server.",
        subcommands: [Create.self, List.self, Rotate.self, Revoke.self]
    )

    struct Create: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Make a token; its text is shown this once.")
        @OptionGroup var access: ServerAccess
        @Argument(help: "viewer (reads), operator (steers runs) or admin.") var role: String
        @Option(help: "Who or what will use it.") var name: String
        @Option(help: "Seconds until it stops working.") var expiresIn: Double?

        func run() async throws {
            guard let role = StaffRole(rawValue: role) else {
                throw ValidationError("a role is viewer, operator or admin, not \(Terminal.printable(role))")
            }
            let request = TokenRequest(role: role, name: name, expiresInS: expiresIn)
            try access.show(await access.answer(to: Endpoints.createToken(), request).bytes)
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "All tokens but those of clients.")
        @OptionGroup var access: ServerAccess

        func run() async throws {
            try access.show(await access.answer(to: Endpoints.tokens()).bytes)
        }
    }

    struct Rotate: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Give a token a new text; id and role stay.")
        @OptionGroup var access: ServerAccess
        @Argument(help: "Its id; 'current' is the one that this command uses.") var token: String
        @Option(help: "Seconds for which the old text goes on working.") var gracePeriod = 0.0

        func run() async throws {
            let target = Endpoints.rotateToken(TokenReference(token))
            try access.show(await access.answer(to: target, TokenRotationRequest(gracePeriodS: gracePeriod)).bytes)
        }
    }

    struct Revoke: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "End a token at once.")
        @OptionGroup var access: ServerAccess
        @Argument(help: "Its id.") var token: String

        func run() async throws {
            _ = try await access.answer(to: Endpoints.revokeToken(TokenReference(token)))
            print("revoked \(token)")
        }
    }
}
