package import StrictJSON
package import WireFormat

/// A run file as a test writes it, or a section of one, in the words of a run file.
///
/// A literal is assigned: `$0.privacy.mode = "central"`. Several fields, or values that are no literals, are added:
/// `$0.cohort += ["goal": goal, "lease_s": 10]`. What is left out has the reader's defaults, and the reader refuses a name that does
/// not exist.
@dynamicMemberLookup
package struct RunFile: Sendable {
    package private(set) var json: JSONValue

    /// One round of the population `p` with a goal of two clients, for a model whose weights are uploaded.
    package static let sample: RunFile = [
        "population": "p", "rounds": 1, "model": ["architecture": "external"], "cohort": ["goal": 2],
    ]

    /// Of kind `analytics`, with the population `p` and nothing else.
    package static let analytics: RunFile = ["population": "p", "kind": "analytics"]

    /// A file with what `change` says.
    package static func sample(
        of file: RunFile = .sample,
        _ change: (inout RunFile) throws -> Void
    ) rethrows -> RunFile {
        var file = file
        try change(&file)
        return file
    }

    /// The file's text, as a client of the API posts it.
    package var text: String { json.text }

    /// A field's value that is no literal.
    package static func value(_ value: some Encodable) -> RunFile {
        do { return RunFile(json: try JSONValue(encoding: value)) } catch {
            preconditionFailure("\(value) cannot be written as JSON: \(error)")
        }
    }

    /// A section or field by its name in run files; an empty section if there is none.
    package subscript(dynamicMember name: String) -> RunFile {
        get { RunFile(json: json.field(name) ?? .object([:])) }
        set { set(name, newValue.json) }
    }

    /// Sets fields of a section, and leaves its others as they are.
    package static func += (section: inout RunFile, fields: KeyValuePairs<String, any Encodable>) {
        for (name, value) in fields { section.set(name, RunFile.value(value).json) }
    }

    /// Sets the fields that another section has, and leaves the others as they are.
    package mutating func add(_ section: RunFile) {
        json = .object((json.objectValue ?? [:]).merging(section.json.objectValue ?? [:]) { $1 })
    }

    /// Takes fields out of a section, so that they have their defaults.
    package static func -= (section: inout RunFile, names: [String]) {
        section.json = .object((section.json.objectValue ?? [:]).filter { !names.contains($0.key) })
    }

    private mutating func set(_ name: String, _ value: JSONValue) {
        json = .object((json.objectValue ?? [:]).merging([name: value]) { $1 })
    }
}

extension RunFile: ExpressibleByDictionaryLiteral, ExpressibleByArrayLiteral, ExpressibleByStringLiteral,
    ExpressibleByIntegerLiteral, ExpressibleByFloatLiteral, ExpressibleByBooleanLiteral
{
    package init(dictionaryLiteral fields: (String, RunFile)...) {
        json = .object(Dictionary(uniqueKeysWithValues: fields.map { ($0.0, $0.1.json) }))
    }
    package init(arrayLiteral items: RunFile...) { json = .array(items.map(\.json)) }
    package init(stringLiteral text: String) { json = .string(text) }
    package init(integerLiteral number: Int) { json = .integer(number) }
    package init(floatLiteral number: Double) { json = JSONValue(number) }
    package init(booleanLiteral flag: Bool) { json = .boolean(flag) }
}

extension RunSpecification {
    /// What the server reads from a file with what `change` says.
    ///
    /// - Throws: ``DocumentError`` with what the reader refuses.
    package static func sample(
        of file: RunFile = .sample,
        _ change: (inout RunFile) throws -> Void = { _ in }
    ) throws -> RunSpecification {
        try RunSpecification.read(RunFile.sample(of: file, change).json)
    }
}
