import Foundation
import Testing
import WireFormat

@testable import Coordination

struct PopulationTableTests {
    private func record(_ id: String, _ name: String) -> PopulationRecord {
        PopulationRecord(id: id, name: name, createdAt: Date(timeIntervalSince1970: 0))
    }

    @Test("A population is found by its id and by its newest name, and is listed where it was made.")
    func lookUp() throws {
        var table = PopulationTable()
        for (id, name) in [("p1", "phones"), ("p2", "watches"), ("p1", "tablets")] { table.set(record(id, name)) }
        #expect(try table.record("p1").name == "tablets")
        #expect(try table.record("tablets").id == "p1")
        #expect(table.hasName("watches") && !table.hasName("phones"))
        #expect(table.order == ["p1", "p2"])
        let refused = #expect(throws: CoordinationError.self) { try table.record("phones") }
        #expect(refused?.code == "not_found")
    }
}
