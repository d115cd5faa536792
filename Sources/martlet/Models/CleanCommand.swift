import ArgumentParser
import Foundation
import LocalTraining
import StrictJSON

struct CleanCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "clean",
        abstract: "Clean text as a client does before training, and count what each rule did.",
        discussion: """
            Repairs the encoding, removes invisible characters, redacts addresses and numbers, drops records of poor quality, \
            of another language, and duplicates. Names and street addresses are not found by rules: what bounds leakage is \
            differential privacy, not cleaning.
            """
    )

    @Argument(help: "Text (a record a line), JSON records, or a table.") var input: String
    @Option(help: "The JSON field or CSV column with the text.") var field = "text"
    @Option(
        name: .shortAndLong,
        help: "Where clean records go, one a line of JSONL (.jsonl) or text; default: nowhere."
    )
    var output: String?
    @Option(help: "Keep records of this language: en, es, fr, de, it, pt, nl, zh, ja, ko, ru, ar, hi or th.")
    var language: String?
    @Flag(help: "With --language: drop records whose language cannot be told.") var strict = false
    @Flag(help: "Leave personal data as they are.") var keepPersonalData = false
    @Flag(help: "Keep duplicates.") var keepDuplicates = false
    @Option(help: "Exit with status 10 when fewer records are left.") var minimumRecords = 0
    @Option(help: "Exit with status 10 when fewer characters are left.") var minimumCharacters = 0
    @Flag(help: "Print the report as JSON.") var json = false

    func run() throws {
        let records = try DataFiles.texts(at: input, field: field)
        let options = CleaningOptions(
            language: language,
            keepsUndetermined: !strict,
            redacts: !keepPersonalData,
            removesDuplicates: !keepDuplicates
        )
        let rules = DataRules(cleaning: options)
        let (data, report) = try rules.apply(to: .texts(records))
        if let output, case .texts(let clean) = data { try write(clean, to: output) }
        if json {
            Terminal.document(try JSONValue(encoding: report).text)
        } else {
            print("\(report.recordsRead) records read, \(report.records) left with \(report.characters) characters")
            for rule in CleaningRule.allCases {
                if let count = report.rules[rule.rawValue] { print("  \(rule.rawValue): \(count)") }
            }
            let languages = report.languages.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
            if !languages.isEmpty {
                print("languages: " + languages.map { "\($0.key) \($0.value)" }.joined(separator: ", "))
            }
        }
        guard report.records >= minimumRecords, report.characters >= minimumCharacters else { throw ExitCode(10) }
    }

    private func write(_ records: [String], to path: String) throws {
        let lines = records.map { record in
            guard path.hasSuffix(".jsonl") else { return record.replacing("\n", with: " ") }
            return JSONText.object([(field, JSONText.quoted(record))])
        }
        let text = lines.isEmpty ? "" : lines.joined(separator: "\n") + "\n"
        do {
            try Data(text.utf8).write(to: URL(fileURLWithPath: path), options: .atomic)
        } catch {
            throw Failure("cannot write \(path)")
        }
    }
}
