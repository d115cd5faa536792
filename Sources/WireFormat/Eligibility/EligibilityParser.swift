/// Reads eligibility expressions by recursive descent; nesting is bounded.
struct EligibilityParser {
    private typealias Node = EligibilityExpression.Node
    private typealias Operand = EligibilityExpression.Operand
    private typealias Literal = EligibilityExpression.Literal
    private typealias Failure = EligibilityExpression.SyntaxError

    private let text: [Character]
    private var index = 0
    private var depth = 0
    private static let depthLimit = 32

    init(_ source: String) {
        text = Array(source)
    }

    mutating func parse() throws(EligibilityExpression.SyntaxError) -> EligibilityExpression.Node {
        guard text.count <= EligibilityExpression.lengthLimit else {
            throw Failure(position: 1, message: "has more than \(EligibilityExpression.lengthLimit) characters")
        }
        let node = try disjunction()
        skipSpace()
        guard index == text.count else { throw failure("'\(text[index])' is not expected here") }
        return node
    }

    private mutating func disjunction() throws(EligibilityExpression.SyntaxError) -> Node {
        var left = try conjunction()
        while take("||") { left = .either(left, try conjunction()) }
        return left
    }

    private mutating func conjunction() throws(EligibilityExpression.SyntaxError) -> Node {
        var left = try unary()
        while take("&&") { left = .both(left, try unary()) }
        return left
    }

    private mutating func unary() throws(EligibilityExpression.SyntaxError) -> Node {
        depth += 1
        defer { depth -= 1 }
        guard depth <= Self.depthLimit else { throw failure("is nested deeper than \(Self.depthLimit) levels") }
        skipSpace()
        if index < text.count, text[index] == "!", peek(1) != "=" {
            index += 1
            return .not(try unary())
        }
        if take("(") {
            let inner = try disjunction()
            guard take(")") else { throw failure("a closing parenthesis is missing") }
            return inner
        }
        return try comparison()
    }

    private mutating func comparison() throws(EligibilityExpression.SyntaxError) -> Node {
        skipSpace()
        let start = index
        if takeWord("true") { return .constant(true) }
        if takeWord("false") { return .constant(false) }
        let left = try operand()
        if takeWord("in") {
            guard case .name(let name) = left else { throw failure("'in' needs a name on its left", at: start) }
            return .isOneOf(name, try list(for: name))
        }
        for sign in ["==", "!=", "<=", ">=", "<", ">"] where take(sign) {
            guard let comparison = EligibilityExpression.Comparison(rawValue: sign) else { continue }
            skipSpace()
            let place = index
            let right = try operand()
            try check(left, right, at: place)
            return .compare(left, comparison, right)
        }
        guard case .name(let name) = left else { throw failure("a comparison is missing after the value") }
        return .isSaid(name)
    }

    private mutating func list(
        for name: EligibilityExpression.Name
    ) throws(EligibilityExpression.SyntaxError) -> [Literal] {
        guard take("[") else { throw failure("a list in brackets must follow 'in'") }
        var literals: [Literal] = []
        repeat {
            skipSpace()
            let place = index
            guard case .literal(let literal) = try operand() else {
                throw failure("a list holds numbers and quoted text only", at: place)
            }
            try check(.name(name), .literal(literal), at: place)
            literals.append(literal)
        } while take(",")
        guard take("]") else { throw failure("a closing bracket is missing") }
        return literals
    }

    /// Refuses comparisons that could never hold, such as a number with quoted text.
    private func check(
        _ left: Operand,
        _ right: Operand,
        at place: Int
    ) throws(EligibilityExpression.SyntaxError) {
        func kind(_ operand: Operand) -> String? {
            switch operand {
            case .name(.number), .literal(.number): "a number"
            case .name(.text), .literal(.text): "text"
            case .name(.label): nil
            }
        }
        guard let first = kind(left), let second = kind(right), first != second else { return }
        throw failure("\(first) is compared with \(second)", at: place)
    }

    private mutating func operand() throws(EligibilityExpression.SyntaxError) -> Operand {
        skipSpace()
        guard index < text.count else { throw failure("a value is missing at the end") }
        let character = text[index]
        if character == "\"" || character == "'" { return .literal(.text(try quoted(character))) }
        if character.isNumber || character == "-" || character == "." { return .literal(.number(try number())) }
        return .name(try name())
    }

    private mutating func quoted(_ mark: Character) throws(EligibilityExpression.SyntaxError) -> String {
        let start = index
        index += 1
        var result = ""
        while index < text.count, text[index] != mark {
            result.append(text[index])
            index += 1
        }
        guard index < text.count else { throw failure("the quotation mark is not closed", at: start) }
        index += 1
        return result
    }

    private mutating func number() throws(EligibilityExpression.SyntaxError) -> Double {
        let start = index
        while index < text.count {
            let character = text[index]
            let isSignOfExponent =
                (character == "-" || character == "+") && index > start && "eE".contains(text[index - 1])
            guard
                character.isNumber || ".eE".contains(character) || isSignOfExponent
                    || (character == "-" && index == start)
            else { break }
            index += 1
        }
        guard let value = Double(String(text[start..<index])), value.isFinite else {
            throw failure("'\(String(text[start..<index]))' is not a number", at: start)
        }
        return value
    }

    private mutating func name() throws(EligibilityExpression.SyntaxError) -> EligibilityExpression.Name {
        let start = index
        let word = identifier()
        guard !word.isEmpty else { throw failure("'\(text[start])' is not expected here", at: start) }
        if word == "labels" {
            guard take(".") else { throw failure("labels needs a name: labels.NAME", at: start) }
            let label = identifier(alsoDashes: true)
            guard !label.isEmpty else { throw failure("a label's name is missing after the dot") }
            return .label(label)
        }
        if EligibilityExpression.numberNames.contains(word) { return .number(word) }
        if EligibilityExpression.textNames.contains(word) { return .text(word) }
        let known = EligibilityExpression.numberNames + EligibilityExpression.textNames + ["labels.NAME"]
        throw failure("'\(word)' is not known; there are \(known.joined(separator: ", "))", at: start)
    }

    private mutating func identifier(alsoDashes: Bool = false) -> String {
        var word = ""
        while index < text.count {
            let character = text[index]
            guard character.isLetter || character.isNumber || character == "_" || (alsoDashes && character == "-")
            else {
                break
            }
            word.append(character)
            index += 1
        }
        return word
    }

    // MARK: -

    private mutating func skipSpace() {
        while index < text.count, text[index].isWhitespace { index += 1 }
    }

    private func peek(_ offset: Int) -> Character? {
        index + offset < text.count ? text[index + offset] : nil
    }

    private mutating func take(_ sign: String) -> Bool {
        skipSpace()
        let characters = Array(sign)
        guard index + characters.count <= text.count, Array(text[index..<(index + characters.count)]) == characters
        else {
            return false
        }
        index += characters.count
        return true
    }

    private mutating func takeWord(_ word: String) -> Bool {
        skipSpace()
        let start = index
        if identifier() == word { return true }
        index = start
        return false
    }

    private func failure(_ message: String, at place: Int? = nil) -> EligibilityExpression.SyntaxError {
        Failure(position: (place ?? index) + 1, message: message)
    }
}
