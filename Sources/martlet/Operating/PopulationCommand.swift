import ArgumentParser
import Foundation
import MartletOperator
import WireFormat

struct PopulationCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "population",
        abstract: "The people whose data one privacy budget covers.",
        subcommands: [Create.self, Show.self, Ledger.self, Budget.self, Token.self]
    )

    struct Create: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Create a population.")
        @OptionGroup var access: ServerAccess
        @Argument(help: "Its name.") var name: String
        @Option(parsing: .unconditional, help: "The budget's epsilon; without it there is no budget.")
        var epsilon: Double?
        @Option(parsing: .unconditional, help: "The budget's delta; 1e-5 where it is not given.") var delta: Double?

        func validate() throws {
            // JSON has no word for these.
            for (name, value) in [("epsilon", epsilon), ("delta", delta)] {
                guard value?.isFinite ?? true else { throw ValidationError("--\(name) must be a finite number") }
                guard value ?? 0 >= 0 else { throw ValidationError("--\(name) must not be negative") }
            }
            guard delta == nil || epsilon != nil else {
                throw ValidationError("--delta belongs to a budget: give its --epsilon too")
            }
        }

        func run() async throws {
            let request = PopulationRequest(
                name: name,
                budget: epsilon.map { BudgetSpecification(epsilon: $0, delta: delta ?? 1e-5) }
            )
            try access.show(await access.answer(to: Endpoints.createPopulation(), request)) {
                OperatorSentences.population($0)
                    + ["enroll clients with: martlet population token \(Terminal.printable(name)) --uses 1000"]
            }
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Clients and budget of one population, or of all.")
        @OptionGroup var access: ServerAccess
        @Argument(help: "Its id or name.") var population: String?

        func run() async throws {
            if let population {
                let answer = try await access.answer(to: Endpoints.population(PopulationReference(population)))
                if access.json { return try access.show(answer.bytes) }
                return show([try answer.decoded()])
            }
            let answer = try await access.answer(to: Endpoints.populations())
            if access.json { return try access.show(answer.bytes) }
            let items = try answer.decoded().items
            guard !items.isEmpty else {
                print("no populations yet; make one with: martlet population create NAME --epsilon 8")
                return
            }
            show(items)
        }

        private func show(_ items: [PopulationView]) {
            var table = TextTable(
                ("POPULATION", .left),
                ("CLIENTS", .right),
                ("EPSILON", .right),
                ("DELTA", .right),
                ("SPENT", .right),
                ("RESERVED", .right),
                ("LEFT", .right),
                ("NAME", .left)
            )
            for item in items {
                func epsilon(_ value: Double?) -> String { value.map { Readable.rounded($0, 3) } ?? "-" }
                table.add(
                    item.id,
                    "\(item.clients.values.reduce(0, +))",
                    epsilon(item.budget?.epsilon),
                    item.budget.map { "\($0.delta)" } ?? "-",
                    epsilon(item.budget?.spentEpsilon),
                    epsilon(item.budget?.reservedEpsilon),
                    epsilon(item.budget?.remainingEpsilon),
                    Terminal.printable(item.name)
                )
            }
            table.show()
        }
    }

    struct Ledger: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Every charge on the budget.")
        @OptionGroup var access: ServerAccess
        @Argument(help: "Its id or name.") var population: String

        func run() async throws {
            let target = Endpoints.populationLedger(PopulationReference(population)).with("format", "jsonl")
            let lines = try await access.answer(to: target).bytes
            for line in lines.split(separator: 10) { try access.showDocument(Data(line)) }
        }
    }

    struct Budget: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Lower the budget's epsilon, or raise it with a reason."
        )
        @OptionGroup var access: ServerAccess
        @Argument(help: "Its id or name.") var population: String
        @Option(parsing: .unconditional, help: "The new epsilon.") var epsilon: Double
        @Option(help: "Why it is raised; stays in the ledger.") var reason: String?

        func validate() throws {
            guard epsilon.isFinite else { throw ValidationError("--epsilon must be a finite number") }
            guard epsilon >= 0 else { throw ValidationError("--epsilon must not be negative") }
        }

        func run() async throws {
            let answer = try await access.answer(
                to: Endpoints.changeBudget(PopulationReference(population)),
                BudgetChangeRequest(epsilon: epsilon, reason: reason)
            )
            try access.show(answer) { OperatorSentences.population($0) }
        }
    }

    struct Token: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Make a token that enrolls clients.")
        @OptionGroup var access: ServerAccess
        @Argument(help: "The population's id or name.") var population: String
        @Option(help: "How many clients it enrolls.") var uses = 1000

        func run() async throws {
            let target = Endpoints.createEnrollmentToken(PopulationReference(population))
            try access.show(await access.answer(to: target, EnrollmentTokenRequest(maxUses: uses)).bytes)
        }
    }
}
