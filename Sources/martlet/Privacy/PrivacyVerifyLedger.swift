import ArgumentParser
import Coordination
import DifferentialPrivacy
import Foundation
import MartletClient

struct PrivacyVerifyLedger: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify-ledger",
        abstract: "Check an exported ledger without the server: hash chain, states, and epsilon by two accountants.",
        discussion: """
            The source is a file (GET /v1/populations/NAME/ledger?format=audit, or ?format=jsonl), - for standard input, a
            server's URL with --population, or the URL of a ledger. Exit status 1 when anything does not hold.
            """
    )
    @OptionGroup var access: ServerAccess
    @Argument(help: "A file, -, or a URL.") var source: String
    @Option(help: "With a server's URL: the population's id or name.") var population: String?
    @Option(help: "For rows that state no budget: the delta.") var delta: Double?

    func run() async throws {
        let audit: LedgerAudit
        do {
            audit = try LedgerAudit(await document(), delta: delta)
        } catch let error as CoordinationError {
            throw Failure("\(source): \(error.message)")
        }
        if access.json { try printJSON(audit) } else { printText(audit) }
        guard audit.problems.isEmpty else { throw ExitCode(1) }
    }

    private func document() async throws -> Data {
        if source == "-" { return FileHandle.standardInput.readDataToEndOfFile() }
        guard let url = URL(string: source), ["http", "https"].contains(url.scheme), let host = url.host else {
            guard let data = FileManager.default.contents(atPath: source) else {
                throw Failure("cannot read \(source)")
            }
            return data
        }
        var server = access
        server.server = "\(url.scheme ?? "http")://\(host)" + (url.port.map { ":\($0)" } ?? "")
        var path = url.path
        if path.isEmpty || path == "/" {
            guard let population else { throw ValidationError("say which --population's ledger to verify") }
            path = "/v1/populations/\(escaped(population))/ledger"
        }
        return try await server.call("GET", path + "?format=audit")
    }

    private func printText(_ audit: LedgerAudit) {
        print("rows  \(audit.rowCount)")
        print("charges  \(audit.committed) committed, \(audit.reserved) reserved, \(audit.released) released")
        if let epsilon = audit.budgetEpsilon, let delta = audit.budgetDelta {
            print("budget  epsilon \(epsilon) at delta \(delta)")
        }
        for row in audit.epsilons {
            print(
                "by \(row.accountant.rawValue)  epsilon \(row.spent) spent, \(row.withReserved) with what is reserved"
            )
        }
        for problem in audit.problems { print("PROBLEM  \(problem)") }
        print(audit.problems.isEmpty ? "the ledger holds" : "the ledger does not hold")
    }

    private func printJSON(_ audit: LedgerAudit) throws {
        let object: [String: Any] = [
            "rows": audit.rowCount, "committed": audit.committed, "reserved": audit.reserved,
            "released": audit.released, "valid": audit.problems.isEmpty, "problems": audit.problems,
            "epsilon_spent": Dictionary(
                uniqueKeysWithValues: audit.epsilons.map { ($0.accountant.rawValue, $0.spent) }
            ),
            "epsilon_with_reserved": Dictionary(
                uniqueKeysWithValues: audit.epsilons.map { ($0.accountant.rawValue, $0.withReserved) }
            ),
            "budget": ["epsilon": audit.budgetEpsilon as Any, "delta": audit.budgetDelta as Any],
        ]
        let data = try JSONSerialization.data(withJSONObject: object, options: [.sortedKeys])
        print(String(decoding: data, as: UTF8.self))
    }
}
