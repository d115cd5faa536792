import ArgumentParser
import Coordination
import DifferentialPrivacy
import Foundation
import MartletOperator
import StrictJSON
import WireFormat

struct PrivacyVerifyLedger: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify-ledger",
        abstract: "Check an exported ledger without the server: hash chain, states, and epsilon by every accountant.",
        discussion: """
            The source is a file (GET /v1/populations/NAME/ledger?format=audit, or ?format=jsonl), - for standard input, a
            server's URL with --population, or the URL of a ledger. Exit status 1 when anything does not hold.

            A document that was cut at its end holds for itself. Give what devices or auditors were told before, and it has to
            extend that:

                martlet privacy verify-ledger ledger.json --head pop_x:24:5f1c… --head heads.json

            Heads are in ledger-head.json of each device's state directory, in assignments and receipts (ledger_head), in GET
            /v1/ledger, and in the last line of this command: keep that for the next time.
            """
    )
    @OptionGroup var access: ServerAccess
    @Argument(help: "A file, -, or a URL.") var source: String
    @Option(help: "With a server's URL: the population's id or name.") var population: String?
    @Option(help: "For rows that state no budget: the delta.") var delta: Double?
    @Option(
        name: .customLong("head"),
        help: "A head that was seen before, POPULATION:NUMBER:HASH, or a JSON file with some; may be repeated."
    ) var heads: [String] = []

    func run() async throws {
        let audit: LedgerAudit
        do {
            audit = try LedgerAudit(await document(), delta: delta, heads: try heads.flatMap(Self.heads))
        } catch let error as CoordinationError {
            throw Failure("\(source): \(error.message)")
        }
        if access.json { try printJSON(audit) } else { printText(audit) }
        guard audit.problems.isEmpty else { throw ExitCode(1) }
    }

    /// One head, or those of a file: a device's `ledger-head.json`, an assignment, a receipt, or any JSON with heads in it.
    static func heads(_ text: String) throws -> [PopulationLedgerHead] {
        if let head = PopulationLedgerHead(text: text) { return [head] }
        guard let data = FileManager.default.contents(atPath: text) else {
            throw ValidationError("'\(text)' is neither POPULATION:NUMBER:HASH nor a file")
        }
        let documents =
            (try? JSONValue(parsing: Array(data))).map { [$0] }
            ?? data.split(separator: UInt8(ascii: "\n")).compactMap { try? JSONValue(parsing: Array($0)) }
        let found = documents.flatMap(heads(in:))
        guard !found.isEmpty else { throw ValidationError("\(text) holds no head") }
        return found
    }

    private static func heads(in value: JSONValue) -> [PopulationLedgerHead] {
        switch value {
        case .string(let text): return PopulationLedgerHead(text: text).map { [$0] } ?? []
        case .array(let items): return items.flatMap(heads(in:))
        case .object(let fields):
            if let population = fields["population"]?.stringValue, let number = fields["number"]?.integerValue,
                let hash = fields["hash"]?.stringValue
            {
                let head = PopulationLedgerHead(population: population, number: number, hash: hash)
                return head.isWellFormed ? [head] : []
            }
            return fields.sorted { $0.key < $1.key }.flatMap { heads(in: $0.value) }
        default: return []
        }
    }

    private func document() async throws -> Data {
        if source == "-" { return FileHandle.standardInput.readDataToEndOfFile() }
        guard let url = URL(string: source), ["http", "https"].contains(url.scheme), let host = url.host else {
            guard let data = FileManager.default.contents(atPath: source) else {
                throw Failure("cannot read \(source): \(DocumentFile.reason(source))")
            }
            return data
        }
        var server = access
        server.server = "\(url.scheme ?? "http")://\(host)" + (url.port.map { ":\($0)" } ?? "")
        let (prefix, population) = try ledger(at: url)
        server.server? += prefix
        return try await server.answer(to: Endpoints.populationLedger(population).with("format", "audit")).bytes
    }

    /// Whose ledger a URL names, and what its path has before that; a URL without a path needs `--population`.
    private func ledger(at url: URL) throws -> (prefix: String, PopulationReference) {
        let segments = url.path.split(separator: "/").map(String.init)
        if segments.isEmpty {
            guard let population else { throw ValidationError("say which --population's ledger to verify") }
            return ("", PopulationReference(population))
        }
        let row = Endpoints.populationLedger.row
        let named = segments.suffix(row.segmentCount)
        guard row.matches(Array(named)) else {
            throw ValidationError("\(source) is no ledger; one is at \(row.template) of its server")
        }
        let prefix = segments.dropLast(named.count).map { "/" + $0 }.joined()
        return (prefix, try row.parameter(PopulationReference.self, in: Array(named)))
    }

    private func printText(_ audit: LedgerAudit) {
        print("rows  \(audit.rowCount)")
        print("charges  \(audit.committed) committed, \(audit.reserved) reserved, \(audit.released) released")
        if let epsilon = audit.budgetEpsilon, let delta = audit.budgetDelta {
            print("budget  epsilon \(Readable.significant(epsilon)) at delta \(delta)")
        }
        for row in audit.epsilons {
            print(
                "by \(row.accountant.rawValue)  epsilon \(Readable.significant(row.spent)) spent, "
                    + "\(Readable.significant(row.withReserved)) with what is reserved"
            )
        }
        for problem in audit.problems { print("PROBLEM  \(problem)") }
        for sentence in audit.proven { print("proven  \(sentence)") }
        for sentence in audit.unproven { print("NOT PROVEN  \(sentence)") }
        if let head = audit.head { print("head  \(head.text)") }
        print(audit.problems.isEmpty ? "the ledger holds" : "the ledger does not hold")
    }

    private func printJSON(_ audit: LedgerAudit) throws {
        func texts(_ texts: [String]) -> JSONValue { .array(texts.map { .string($0) }) }
        func number(_ number: Double?) -> JSONValue { number.map { JSONValue($0) } ?? .null }
        let names = audit.epsilons.map(\.accountant.rawValue)
        func epsilons(_ values: [Double]) -> JSONValue {
            .object(Dictionary(uniqueKeysWithValues: zip(names, values.map { JSONValue($0) })))
        }
        let object: [String: JSONValue] = [
            "rows": .integer(audit.rowCount), "committed": .integer(audit.committed),
            "reserved": .integer(audit.reserved), "released": .integer(audit.released),
            "valid": .boolean(audit.problems.isEmpty), "problems": texts(audit.problems),
            "epsilon_spent": epsilons(audit.epsilons.map(\.spent)),
            "epsilon_with_reserved": epsilons(audit.epsilons.map(\.withReserved)),
            "head": .string(audit.head?.text ?? ""), "proven": texts(audit.proven), "not_proven": texts(audit.unproven),
            "budget": .object(["epsilon": number(audit.budgetEpsilon), "delta": number(audit.budgetDelta)]),
        ]
        Terminal.document(JSONValue.object(object).text)
    }
}
