import Foundation
import GRDB
import SQLiteStorage
import TestSupport
import Testing

/// Every column of the database is in `docs/privacy-inventory.yaml`: what depends on people's data must have said so.
struct DatabaseInventoryTests {
    /// Tables and their columns, as the section `sql` of the file has them: two levels of `name: `, indented by spaces.
    private func inventory() throws -> [String: Set<String>] {
        let path =
            URL(fileURLWithPath: #filePath).deletingLastPathComponent().path + "/../../docs/privacy-inventory.yaml"
        var tables: [String: Set<String>] = [:]
        var (section, table) = ("", "")
        for line in try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n") where !line.hasPrefix("#")
        {
            let name = String(line.trimmingCharacters(in: .whitespaces).prefix { $0 != ":" })
            switch line.prefix(while: { $0 == " " }).count {
            case 0: section = name
            case 2 where section == "sql":
                table = name
                tables[table] = []
            case 4 where section == "sql": tables[table]?.insert(name)
            default: continue
            }
        }
        return tables
    }

    @Test func everyColumnIsInTheInventory() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/martlet.sqlite"
        _ = try SQLiteRunStore(path: path)
        let tables = try DatabaseQueue(path: path).read { database in
            let names = try String.fetchAll(
                database,
                sql: "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'"
            )
            return Dictionary(
                uniqueKeysWithValues: try names.map { ($0, Set(try database.columns(in: $0).map(\.name))) }
            )
        }
        let known = try inventory()
        #expect(tables.count > 10 && Set(tables.keys) == Set(known.keys))
        for (table, columns) in tables {
            let listed = known[table] ?? []
            #expect(columns.subtracting(listed).sorted() == [], "of \(table), missing in docs/privacy-inventory.yaml")
            #expect(
                listed.subtracting(columns).sorted() == [],
                "of \(table), in docs/privacy-inventory.yaml and nowhere else"
            )
        }
    }
}
