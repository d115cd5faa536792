extension DataRules {
    /// Cleans data and reports what they are like.
    ///
    /// - Throws: `LocalTrainingError.unusableData(reason:rule:)` if less is left than the run asks for.
    public func apply(to data: LocalData) throws -> (data: LocalData, report: DataReport) {
        let prepared: LocalData
        let report: DataReport
        switch data {
        case .table(let table):
            prepared = data
            report = DataReport(table: table)
        case .texts(let records):
            let result = cleaning.map { TextCleaner($0).clean(records) } ?? CleaningResult(records: records)
            prepared = .texts(result.records)
            report = DataReport(recordCount: records.count, result: result)
            guard report.characters >= minimumCharacters else {
                throw LocalTrainingError.unusableData(
                    reason: "\(report.characters) characters are left, the run asks for \(minimumCharacters)",
                    rule: "fewer than the run's \(minimumCharacters) characters are left"
                )
            }
        }
        guard report.records >= minimumRecords else {
            throw LocalTrainingError.unusableData(
                reason: "\(report.records) records are left, the run asks for \(minimumRecords)",
                rule: "fewer than the run's \(minimumRecords) records are left"
            )
        }
        return (prepared, report)
    }
}

/// A summary of a device's data, for its owner.
///
/// It stays on the device unless its owner sends it.
public struct DataReport: Equatable, Sendable, Codable {
    /// The number of records that were read.
    public var recordsRead: Int
    /// The number of records or rows after cleaning.
    public var records: Int
    /// The number of characters after cleaning.
    public var characters = 0
    /// The number of characters of the median record.
    public var medianLength = 0
    /// How often each rule of cleaning applied.
    public var rules: [String: Int] = [:]
    /// The number of records by language.
    public var languages: [String: Int] = [:]
    /// The share of each script among all letters, from 0 to 1.
    public var scripts: [String: Double] = [:]
    /// The share of cells without a value by column, from 0 to 1.
    public var missing: [String: Double] = [:]
    /// Rows of a table that the model's schema leaves out, if any.
    public var leftOut: LeftOutRows?

    enum CodingKeys: String, CodingKey {
        case recordsRead = "records_read"
        case records, characters
        case medianLength = "median_length"
        case rules, languages, scripts, missing
        case leftOut = "left_out"
    }

    init(recordCount: Int, result: CleaningResult) {
        recordsRead = recordCount
        records = result.records.count
        rules = Dictionary(uniqueKeysWithValues: result.counts.map { ($0.key.rawValue, $0.value) })
        let lengths = result.records.map(\.count).sorted()
        characters = lengths.reduce(0, +)
        medianLength = lengths.isEmpty ? 0 : lengths[lengths.count / 2]
        var letters: [TextProfile.Script: Int] = [:]
        var letterCount = 0
        for record in result.records {
            let profile = TextProfile(record)
            languages[profile.language, default: 0] += 1
            letters.merge(profile.scripts) { $0 + $1 }
            letterCount += profile.letterCount
        }
        for (script, count) in letters where letterCount > 0 {
            scripts[script.rawValue] = Double(count) / Double(letterCount)
        }
    }

    init(table: Table) {
        recordsRead = table.rows.count
        records = table.rows.count
        for (index, column) in table.header.enumerated() where !table.rows.isEmpty {
            let empty = table.rows.reduce(0) { $0 + (TableCell.isMissing($1[index]) ? 1 : 0) }
            if empty > 0 { missing[column] = Double(empty) / Double(table.rows.count) }
        }
    }
}
