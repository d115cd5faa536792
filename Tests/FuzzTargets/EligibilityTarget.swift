package import Tensors
import WireFormat

/// Rules about who may take part.
package struct EligibilityTarget: FuzzTarget {
    package static let name = "eligibility"
    package static let testCaseCount = 5000
    private static let words = [
        "memory_bytes", "cpu_count", "labels.locale", "labels.x", "runtime_version", "network", ">=", "==", "!=", "<",
        "in", "[", "]",
        "(", ")", "!", "&&", "||", "2e9", "'en'", "\"zh\"", ",", "1", "name", "'", ".", "é", "-1", "true",
    ]
    private let subject = EligibilityExpression.Subject(
        capabilities: ClientCapabilities(memoryBytes: 4_000_000_000, cpuCount: 8),
        labels: ["locale": "en", "x": "7"]
    )

    package init() {}

    package mutating func run(_ generator: inout Xoshiro256StarStar) throws -> Bool {
        var text = generator.oneIn(2) ? "memory_bytes >= 2e9 && labels.locale == 'en' " : ""
        if generator.oneIn(500) { text += String(repeating: generator.pick(["(", "!", "(!"]), count: 1900) }
        for _ in 0..<generator.nextIndex(below: 12) {
            text += generator.pick(Self.words) + (generator.oneIn(4) ? "" : " ")
        }
        let expression: EligibilityExpression
        do {
            expression = try EligibilityExpression(text)
        } catch {
            try expect(
                (1...text.count + 1).contains(error.position),
                "the position \(error.position) lies outside the text",
                Array(text.utf8)
            )
            return false
        }
        let again = try? EligibilityExpression(expression.source)
        try expect(again == expression, "reads differently the second time", Array(text.utf8))
        try expect(
            again?.accepts(subject) == expression.accepts(subject),
            "judges differently the second time",
            Array(text.utf8)
        )
        return true
    }
}
