import CoordinatorAPI
import Foundation
import StrictJSON
import WireFormat

/// The effective settings: flags before the environment before the file before the defaults.
struct Settings: Sendable {
    /// Where a value comes from.
    enum Source: Sendable, CustomStringConvertible {
        case fallback
        case file(String)
        case environment(String)
        case flag(String)

        var description: String {
            switch self {
            case .fallback: "default"
            case .file(let path): path
            case .environment(let name): name
            case .flag(let name): name
            }
        }
    }

    /// What is wrong with the settings, all of it at once.
    struct Invalid: Error, CustomStringConvertible {
        var problems: [String]
        var description: String { problems.joined(separator: "\n") }
    }

    private(set) var values: [String: (value: String, source: Source)] = [:]

    /// Reads all sources.
    ///
    /// - Parameters:
    ///   - flags: By setting name, with the flag's own name for messages.
    ///   - environment: The process's variables.
    ///   - file: The YAML file; `MARTLET_CONFIG` names it where this is `nil`.
    /// - Throws: ``Invalid`` with every problem that was found.
    init(flags: [(key: String, value: String, flag: String)], environment: [String: String], file: String?) throws {
        var problems: [String] = []
        let definitions = Dictionary(uniqueKeysWithValues: SettingDefinition.all.map { ($0.key, $0) })
        for definition in definitions.values { values[definition.key] = (definition.fallback, .fallback) }
        if let path = file ?? environment["MARTLET_CONFIG"], !path.isEmpty {
            do {
                for (key, value) in try Self.read(path) {
                    guard definitions[key] != nil else {
                        problems.append("\(path): '\(key)' is not a setting\(Self.suggestion(for: key))")
                        continue
                    }
                    values[key] = (value, .file(path))
                }
            } catch let error as DocumentError {
                problems.append("\(path): \(error)")
            } catch { problems.append("\(error)") }
        }
        for definition in SettingDefinition.all {
            guard let value = environment[definition.variable] else { continue }
            values[definition.key] = (value, .environment(definition.variable))
        }
        // What is misspelt must not pass: MARTLET_TLS_CLIENT_CERTIFICATE=required would demand nothing.
        let known = Set(SettingDefinition.all.map(\.variable))
        for (name, value) in environment.sorted(by: { $0.key < $1.key })
        where name.hasPrefix("MARTLET_") && !known.contains(name) && !Self.isForOthers(name, value) {
            guard let section = Self.sections.first(where: { name.hasPrefix("MARTLET_\($0.uppercased())_") }) else {
                problems.append("\(name) is not a setting's variable\(Self.suggestion(forVariable: name))")
                continue
            }
            let key = section + "." + name.dropFirst("MARTLET_\(section)_".count).lowercased()
            problems.append("\(name) is not a setting's variable\(Self.suggestion(for: key, asVariable: true))")
        }
        for (key, value, flag) in flags {
            guard definitions[key] != nil else {
                problems.append("\(flag): '\(key)' is not a setting\(Self.suggestion(for: key))")
                continue
            }
            values[key] = (value, .flag(flag))
        }
        for definition in SettingDefinition.all {
            guard let (value, source) = values[definition.key], let problem = definition.problem(with: value) else {
                continue
            }
            problems.append("\(definition.key) (\(source)) \(problem)")
        }
        guard problems.isEmpty else { throw Invalid(problems: problems) }
    }

    // MARK: - Typed values

    func text(_ key: String) -> String { values[key]?.value ?? "" }
    func optional(_ key: String) -> String? { text(key).isEmpty ? nil : text(key) }
    /// A word of a closed set; the catalogue admits no others.
    func word<Word: RawRepresentable>(_ key: String, as type: Word.Type = Word.self) -> Word
    where Word.RawValue == String {
        guard let word = Word(rawValue: text(key)) else {
            preconditionFailure("\(key) has a word that the catalogue lacks")
        }
        return word
    }
    func flag(_ key: String) -> Bool { text(key) == "true" }
    func integer(_ key: String) -> Int { Int(text(key)) ?? 0 }
    func number(_ key: String) -> Double { Double(text(key)) ?? 0 }
    func bytes(_ key: String) -> Int { SettingDefinition.byteCount(text(key)) ?? 0 }
    func duration(_ key: String) -> Duration { .seconds(number(key)) }
    func list(_ key: String) -> [String] {
        text(key).split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) }.filter { !$0.isEmpty }
    }

    // MARK: -

    /// Variables of other commands, of trainers and of tests, which a server's environment may hold too.
    static let otherVariables: Set<String> = [
        "MARTLET_ASSIGNMENT", "MARTLET_CA_FILE", "MARTLET_CLIENT_CERTIFICATE", "MARTLET_CLIENT_KEY", "MARTLET_CONFIG",
        "MARTLET_DEADLINE", "MARTLET_DIE_AT_POINT", "MARTLET_HELPER_KEY_FILE", "MARTLET_MODEL_DIR", "MARTLET_OP",
        "MARTLET_PINNED_KEY", "MARTLET_ROUND", "MARTLET_SAMPLER_DRAWS", "MARTLET_SEED",
        "MARTLET_SIMULATION_SEQUENCES", "MARTLET_SLOW_TESTS", "MARTLET_STATE_DIR", "MARTLET_THREADS", "MARTLET_TOKEN",
        "MARTLET_UPDATE_DIR", "MARTLET_UPDATE_DOCS", "MARTLET_URL",
    ]

    /// Whether a variable is nothing to the server: another command's, a test's, or one that Kubernetes and Docker make for every
    /// service called martlet (`MARTLET_PORT=tcp://…`, `MARTLET_SERVICE_HOST`).
    private static func isForOthers(_ name: String, _ value: String) -> Bool {
        otherVariables.contains(name) || name.hasPrefix("MARTLET_TEST_") || name.hasPrefix("MARTLET_FAULT_")
            || name.hasPrefix("MARTLET_SERVICE_")
            || name.hasPrefix("MARTLET_PORT") && ["tcp://", "udp://", "sctp://"].contains { value.hasPrefix($0) }
            || name.wholeMatch(of: /MARTLET_PORT_[0-9]+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?/) != nil
    }

    /// What a variable without a section probably means.
    private static func suggestion(forVariable name: String) -> String {
        let key = name.dropFirst("MARTLET_".count).lowercased()
        let listening = ["port", "host", "address", "bind", "listen_address", "listen_port"]
        if listening.contains(key) { return "; did you mean MARTLET_LISTEN, which is HOST:PORT?" }
        let candidates = SettingDefinition.all.map(\.variable) + otherVariables
        let nearest = candidates.map { ($0, distance(name, $0)) }.min { ($0.1, $0.0) < ($1.1, $1.0) }
        guard let nearest, nearest.1 <= 4 else { return "; 'martlet config check' shows them all" }
        return "; did you mean \(nearest.0)?"
    }

    /// What stands before the dot of settings' names.
    private static let sections = Set(
        SettingDefinition.all.compactMap { $0.key.contains(".") ? String($0.key.prefix { $0 != "." }) : nil }
    ).sorted()

    /// The file's settings with their dotted names.
    private static func read(_ path: String) throws -> [(String, String)] {
        var found: [(String, String)] = []
        func walk(_ value: JSONValue, _ prefix: String) throws {
            switch value {
            case .object(let fields):
                for (name, item) in fields.sorted(by: { $0.key < $1.key }) {
                    try walk(item, prefix.isEmpty ? name : prefix + "." + name)
                }
            case .array(let items):
                found.append((prefix, try items.map { try scalar($0, prefix) }.joined(separator: ",")))
            default: found.append((prefix, try scalar(value, prefix)))
            }
        }
        func scalar(_ value: JSONValue, _ key: String) throws -> String {
            switch value {
            case .string(let text): return text
            case .integer(let number): return String(number)
            case .number(let number): return "\(number)"
            case .boolean(let value): return value ? "true" : "false"
            case .null: return ""
            case .array, .object: throw DocumentError("", "'\(key)' must be a value or a list of values")
            }
        }
        let document = try YAMLDocument.parse(DocumentFile.bytes(path))
        guard case .object = document else { throw DocumentError("", "must be a mapping of settings") }
        try walk(document, "")
        return found
    }

    /// The nearest setting's name, or that of its variable, when one is near.
    private static func suggestion(for key: String, asVariable: Bool = false) -> String {
        let nearest = SettingDefinition.all.map { ($0, distance(key, $0.key)) }.min { $0.1 < $1.1 }
        guard let nearest, nearest.1 <= 4 else { return "; 'martlet config check' shows them all" }
        return "; did you mean \(asVariable ? nearest.0.variable : "'\(nearest.0.key)'")?"
    }

    private static func distance(_ left: String, _ right: String) -> Int {
        let (a, b) = (Array(left.utf8), Array(right.utf8))
        var row = Array(0...b.count)
        for i in 0..<a.count {
            var previous = row[0]
            row[0] = i + 1
            for j in 0..<b.count {
                let above = row[j + 1]
                row[j + 1] = min(above + 1, row[j] + 1, previous + (a[i] == b[j] ? 0 : 1))
                previous = above
            }
        }
        return row[b.count]
    }
}
