import TestBenches
import TestSupport
import Testing

/// Every code that the server can give is described, and every one that is described can be given.
///
/// `Service` holds each answer of all API tests to the description as well, with its status: codes that are put together at run time.
struct ProblemCodeTests {
    /// At a start or of a command, which no request sees.
    private static let ofNoAnswer: Set = [
        "token_in_use", "schema_too_new", "not_a_ledger", "ledger_record_damaged",
        // The reason of an attempt that ends.
        "count_differs",
    ]
    /// Made of a word at run time: `invalid_` and a tensor's name.
    private static let composed: Set = ["invalid_counts", "invalid_vote"]

    private func words(
        _ patterns: [Regex<(Substring, Substring)>],
        _ modules: [String],
        without words: [String] = []
    ) throws -> Set<String> {
        let sources = try ProblemCodes.sources(modules, without: words)
        return Set(sources.flatMap { text in patterns.flatMap { text.matches(of: $0).map { String($0.output.1) } } })
    }

    @Test func theCodesOfTheSourcesAreThoseOfTheDescription() throws {
        let kinds = "unauthorized|forbidden|notFound|conflict|gone|tooLarge|unprocessable|unavailable"
        let patterns = [
            try Regex("CoordinationError\\(\\s*\\.(?:\(kinds)),\\s*\"([a-z_]+)\"", as: (Substring, Substring).self),
            try Regex(#"UpdateFormatError\(\s*"([a-z_]+)""#, as: (Substring, Substring).self),
            try Regex(#"superseding\([a-z]+, code: "([a-z_]+)""#, as: (Substring, Substring).self),
            // Computed ones.
            try Regex(#"[cC]ode: String \{ .*\? "([a-z_]+)" : "[a-z_]+" \}"#, as: (Substring, Substring).self),
            try Regex(#"[cC]ode: String \{ .*\? "[a-z_]+" : "([a-z_]+)" \}"#, as: (Substring, Substring).self),
            try Regex(#"static let (?:withdrawnMethod|damaged) = "([a-z_]+)""#, as: (Substring, Substring).self),
            try Regex(#"static let (?:notFinite|valueOutOfRange) = "([a-z_]+)""#, as: (Substring, Substring).self),
        ]
        // The mapping's own documents, and those by status.
        let mapped = [
            try Regex(#"code: "([a-z_]+)",?$"#, as: (Substring, Substring).self).anchorsMatchLineEndings(),
            try Regex(#"case [0-9]{3}: "([a-z_]+)""#, as: (Substring, Substring).self),
            try Regex(#"default: "(bad_request)""#, as: (Substring, Substring).self),
        ]
        let found = try words(patterns, ["Coordination", "CoordinatorAPI", "SQLiteStorage", "UpdateCompression"])
            .union(words(mapped, ["CoordinatorAPI"])).subtracting(Self.ofNoAnswer).union(Self.composed)
        let described = Set(ProblemCodes.described.keys)
        #expect(found.count > 70 && found.subtracting(described).isEmpty, "\(found.subtracting(described))")
        #expect(described.subtracting(found).isEmpty, "nothing gives \(described.subtracting(found))")
        #expect(ProblemCodes.described.values.allSatisfy { !$0.isEmpty && $0.allSatisfy((400...599).contains) })
    }

    @Test func theOverviewsCodesAreThoseOfTheDescription() throws {
        let patterns = [
            try Regex(#"ProblemView\(\s*code: "([a-z_]+)""#, as: (Substring, Substring).self),
            try Regex(#" add\(\s*"([a-z_]+)[":]"#, as: (Substring, Substring).self),
            try Regex(#"stall\.failure == nil \? "([a-z_]+)""#, as: (Substring, Substring).self),
            try Regex(#"stall\.failure == nil \? "[a-z_]+" : "([a-z_]+)""#, as: (Substring, Substring).self),
            // Those that are errors as well.
            try Regex(#"[cC]ode: String \{ .*\? "([a-z_]+)" : "[a-z_]+" \}"#, as: (Substring, Substring).self),
            try Regex(#"[cC]ode: String \{ .*\? "[a-z_]+" : "([a-z_]+)" \}"#, as: (Substring, Substring).self),
        ]
        // Events and counters are added, too.
        let found = try words(patterns, ["Coordination"], without: ["Events/", "Metrics"])
        #expect(found == ProblemCodes.ofOverview, "\(found.symmetricDifference(ProblemCodes.ofOverview))")
    }
}
