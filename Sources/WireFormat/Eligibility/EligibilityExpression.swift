/// A rule over a client's capabilities and labels, such as `memory_bytes >= 2e9 && labels.locale == "zh"`.
///
/// Names: `memory_bytes`, `cpu_count`, `num_examples` (numbers); `accelerator`, `network`, `runtime_version`, `name` (text);
/// `labels.NAME` (text, or a number where it is compared with one). Operators: `== != < <= > >=`, `in [...]`, `&& || !` and
/// parentheses. A name alone asks whether the client says it. A comparison with something that the client does not say is
/// false, whatever the operator: what is unknown is never eligible by accident.
package struct EligibilityExpression: Equatable, Sendable {
    /// Why an expression cannot be read; `position` counts characters from 1.
    package struct SyntaxError: Error, Equatable, Sendable {
        package var position: Int
        package var message: String
    }

    /// What an expression may ask about one client.
    package struct Subject: Sendable {
        package var capabilities: ClientCapabilities
        package var labels: [String: String]
        package var name: String?
        package var exampleCount: Int?

        package init(
            capabilities: ClientCapabilities,
            labels: [String: String],
            name: String? = nil,
            exampleCount: Int? = nil
        ) {
            self.capabilities = capabilities
            self.labels = labels
            self.name = name
            self.exampleCount = exampleCount
        }
    }

    indirect enum Node: Equatable, Sendable {
        case constant(Bool)
        case isSaid(Name)
        case compare(Operand, Comparison, Operand)
        case isOneOf(Name, [Literal])
        case not(Node)
        case both(Node, Node)
        case either(Node, Node)
    }

    enum Comparison: String, Sendable {
        case equal = "=="
        case notEqual = "!="
        case less = "<"
        case lessOrEqual = "<="
        case greater = ">"
        case greaterOrEqual = ">="
    }

    enum Name: Equatable, Sendable {
        case number(String)
        case text(String)
        case label(String)
    }

    enum Literal: Equatable, Sendable {
        case number(Double)
        case text(String)
    }

    enum Operand: Equatable, Sendable {
        case name(Name)
        case literal(Literal)
    }

    static let numberNames = ["memory_bytes", "cpu_count", "num_examples"]
    static let textNames = ["accelerator", "network", "runtime_version", "name"]
    static let lengthLimit = 2000

    /// The text that was read.
    package let source: String
    let root: Node

    /// Reads an expression.
    package init(_ source: String) throws(SyntaxError) {
        self.source = source
        var parser = EligibilityParser(source)
        root = try parser.parse()
    }

    /// Whether a client is eligible.
    package func accepts(_ subject: Subject) -> Bool { Self.evaluate(root, subject) }

    /// Whether the answer depends on how many examples a client has.
    package var usesExampleCount: Bool { Self.names(in: root).contains(.number("num_examples")) }

    private static func names(in node: Node) -> [Name] {
        switch node {
        case .constant: []
        case .isSaid(let name), .isOneOf(let name, _): [name]
        case .not(let inner): names(in: inner)
        case .both(let left, let right), .either(let left, let right): names(in: left) + names(in: right)
        case .compare(let left, _, let right):
            [left, right].compactMap { if case .name(let name) = $0 { name } else { Name?.none } }
        }
    }

    private static func evaluate(_ node: Node, _ subject: Subject) -> Bool {
        switch node {
        case .constant(let value): value
        case .isSaid(let name): value(of: name, subject) != nil
        case .not(let inner): !evaluate(inner, subject)
        case .both(let left, let right): evaluate(left, subject) && evaluate(right, subject)
        case .either(let left, let right): evaluate(left, subject) || evaluate(right, subject)
        case .isOneOf(let name, let literals):
            literals.contains { compare(.name(name), .equal, .literal($0), subject) }
        case .compare(let left, let comparison, let right): compare(left, comparison, right, subject)
        }
    }

    private static func compare(
        _ left: Operand,
        _ comparison: Comparison,
        _ right: Operand,
        _ subject: Subject
    ) -> Bool {
        guard let left = value(of: left, subject), let right = value(of: right, subject) else { return false }
        switch (left, right) {
        case (.number(let a), .number(let b)): return holds(comparison, a < b, a == b)
        case (.text(let a), .text(let b)): return holds(comparison, a < b, a == b)
        // A label compared with a number: text that is no number compares as unknown.
        case (.text(let a), .number(let b)):
            guard let a = Double(a) else { return false }
            return holds(comparison, a < b, a == b)
        case (.number(let a), .text(let b)):
            guard let b = Double(b) else { return false }
            return holds(comparison, a < b, a == b)
        }
    }

    private static func holds(_ comparison: Comparison, _ isLess: Bool, _ isEqual: Bool) -> Bool {
        switch comparison {
        case .equal: isEqual
        case .notEqual: !isEqual
        case .less: isLess
        case .lessOrEqual: isLess || isEqual
        case .greater: !isLess && !isEqual
        case .greaterOrEqual: !isLess
        }
    }

    private static func value(of operand: Operand, _ subject: Subject) -> Literal? {
        switch operand {
        case .literal(let literal): literal
        case .name(let name): value(of: name, subject)
        }
    }

    private static func value(of name: Name, _ subject: Subject) -> Literal? {
        switch name {
        case .label(let label): subject.labels[label].map(Literal.text)
        case .number("memory_bytes"): subject.capabilities.memoryBytes.map { .number(Double($0)) }
        case .number("cpu_count"): subject.capabilities.cpuCount.map { .number(Double($0)) }
        case .number: subject.exampleCount.map { .number(Double($0)) }
        case .text("accelerator"): subject.capabilities.accelerator.map(Literal.text)
        case .text("network"): subject.capabilities.network.map(Literal.text)
        case .text("runtime_version"): subject.capabilities.runtimeVersion.map(Literal.text)
        case .text: subject.name.map(Literal.text)
        }
    }
}
