import WireFormat

/// Every population by its id and its name, and in the order in which they were made.
struct PopulationTable: Sendable {
    private var records: [String: PopulationRecord] = [:]
    private var byName: [String: String] = [:]
    /// Ids, oldest first.
    private(set) var order: [String] = []

    subscript(id: String) -> PopulationRecord? {
        WorkCount.note()
        return records[id]
    }

    /// Every population, in no order.
    var all: some Collection<PopulationRecord> {
        WorkCount.note(records.count)
        return records.values
    }

    /// Whether a name is taken.
    func hasName(_ name: String) -> Bool { byName[name] != nil }

    /// A population by its id or its name.
    func record(_ idOrName: String) throws(CoordinationError) -> PopulationRecord {
        if let record = records[idOrName] ?? byName[idOrName].flatMap({ records[$0] }) { return record }
        throw CoordinationError(.notFound, "not_found", "no population '\(idOrName)'; an administrator makes one")
    }

    /// Adds a population, or replaces what was known of it.
    mutating func set(_ record: PopulationRecord) {
        if let before = records.updateValue(record, forKey: record.id) {
            byName[before.name] = nil
        } else {
            order.append(record.id)
        }
        byName[record.name] = record.id
    }
}
