import Coordination
import CoordinatorAPI
import Foundation
import StrictJSON
import TestSupport
import Testing

/// Whatever is stored, sent, logged or measured has a row in `docs/privacy-inventory.yaml`, with a class that
/// `docs/privacy.md` explains; the columns of the database are `DatabaseInventoryTests`' matter.
struct PrivacyInventoryTests {
    private static let repository =
        URL(fileURLWithPath: #filePath).deletingLastPathComponent().path + "/../../.."

    private func text(_ path: String) throws -> String {
        try String(contentsOfFile: Self.repository + "/" + path, encoding: .utf8)
    }

    private func fields(_ value: JSONValue?) -> [String: JSONValue] {
        if case .object(let fields)? = value { fields } else { [:] }
    }

    private func inventory() throws -> [String: JSONValue] {
        fields(try YAMLDocument.parse(text("docs/privacy-inventory.yaml")))
    }

    /// Reports what is missing, and what the inventory has that there is no more.
    private func compare(_ section: String, _ found: Set<String>, _ rows: [String: JSONValue]) {
        for name in found.subtracting(rows.keys).sorted() {
            Issue.record("\(section) '\(name)' is not in docs/privacy-inventory.yaml")
        }
        for name in Set(rows.keys).subtracting(found).sorted() {
            Issue.record("\(section) '\(name)' of docs/privacy-inventory.yaml does not exist")
        }
    }

    @Test func everyFieldOfTheInterfaceIsInTheInventory() throws {
        let document = fields(try YAMLDocument.parse(text("openapi.yaml")))
        let schemas = fields(fields(document["components"])["schemas"])
        let rows = fields(try inventory()["api"])
        #expect(schemas.count > 40)
        compare("schema", Set(schemas.keys), rows)
        for (name, schema) in schemas {
            let properties = Set(fields(fields(schema)["properties"]).keys)
            compare("field of \(name)", properties.isEmpty ? ["*"] : properties, fields(rows[name]))
        }
    }

    @Test func everyMetricAndEventIsInTheInventory() throws {
        let names = MetricsRegistry.server().exposition().split(separator: "\n").filter { $0.hasPrefix("# TYPE ") }
            .compactMap { $0.split(separator: " ").dropFirst(2).first.map(String.init) }
        #expect(names.count > 30)
        compare("metric", Set(names), fields(try inventory()["metrics"]))
        // Types of events are given where events are written, and nowhere else.
        let source = try text("Sources/Coordination/Events/EventJournal+Rows.swift")
        let types = source.matches(of: #/[. ]add\(\s*"([a-z_]+)"/#).map { String($0.output.1) }
        #expect(types.count > 5)
        compare("event", Set(types), fields(try inventory()["events"]))
    }

    /// Log lines are constant sentences; what they say beside them has names.
    @Test func everyFieldOfALogLineIsInTheInventory() throws {
        var keys: Set<String> = []
        for module in ["Coordination", "CoordinatorAPI", "HTTPServing", "SQLiteStorage", "martlet"] {
            let root = Self.repository + "/Sources/" + module
            let files = try #require(FileManager.default.enumerator(atPath: root))
            for case let name as String in files where name.hasSuffix(".swift") {
                let source = try String(contentsOfFile: root + "/" + name, encoding: .utf8)
                guard source.contains("logger") else { continue }
                for match in source.matches(of: #/"([a-z_]+(?:\.[a-z_]+)*)"\]? ?[:=] "\\\(/#) {
                    keys.insert(String(match.output.1))
                }
            }
        }
        #expect(keys.count > 15)
        compare("field of log lines", keys, fields(try inventory()["log"]))
    }

    @Test func everyClassIsExplainedForEachMode() throws {
        let guide = try text("docs/privacy.md")
        var classes: Set<String> = []
        func collect(_ value: JSONValue) {
            switch value {
            case .string(let name): classes.insert(name)
            case .object(let fields): for value in fields.values { collect(value) }
            default: Issue.record("the inventory holds what is no class")
            }
        }
        for section in try inventory().values { collect(section) }
        #expect(classes.count > 8)
        for name in classes.sorted() {
            let row = guide.split(separator: "\n").first { $0.hasPrefix("| `\(name)` |") }
            let cells = row?.split(separator: "|", omittingEmptySubsequences: false).map {
                $0.trimmingCharacters(in: .whitespaces)
            }
            #expect(cells?.count == 8 && cells?.dropFirst().dropLast().allSatisfy { !$0.isEmpty } == true, "\(name)")
        }
    }
}
