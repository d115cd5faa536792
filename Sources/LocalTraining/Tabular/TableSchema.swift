/// Which columns of a table are features and which is the label (`schema.json`).
///
/// Levels of categories come from here, never from local data, so that all clients agree on the width.
public struct TableSchema: Equatable, Sendable {
    /// What is predicted.
    public enum Label: Equatable, Sendable {
        /// Yes or no: a comparison such as `> 0` or `= yes`.
        case binary(column: String, comparison: Comparison)
        /// One of several levels.
        case classes(column: String, levels: [String])
    }

    /// A condition on one cell.
    public struct Comparison: Equatable, Sendable {
        /// One of `>`, `>=`, `<`, `<=`, `=`, `!=`.
        public var relation: String
        /// The right side: a number for orders, any text for equality.
        public var value: String

        /// Reads `> 0`.
        init?(_ text: String) {
            for relation in [">=", "<=", "!=", ">", "<", "="] where text.hasPrefix(relation) {
                self.relation = relation
                value = String(text.dropFirst(relation.count).drop { $0 == " " })
                let isOrder = relation.contains(">") || relation.contains("<")
                if value.isEmpty || (isOrder && Double(value) == nil) { return nil }
                return
            }
            return nil
        }

        /// Whether a cell fulfils it; `nil` when the cell is no number and one is needed.
        func holds(for cell: String) -> Bool? {
            if let left = Double(cell), let right = Double(value) {
                switch relation {
                case ">": return left > right
                case ">=": return left >= right
                case "<": return left < right
                case "<=": return left <= right
                case "=": return left == right
                default: return left != right
                }
            }
            switch relation {
            case "=": return cell == value
            case "!=": return cell != value
            default: return nil
            }
        }
    }

    /// One column as it enters the model.
    public enum Feature: Equatable, Sendable {
        /// A number; `center` and `scale` are public guesses, used where sums of it are sent.
        case number(column: String, center: Double, scale: Double)
        /// One input a level, without the first one on request.
        case category(column: String, levels: [String], dropsFirst: Bool)
        /// Counts of word n-grams up to a length, hashed with a sign.
        case text(column: String, buckets: Int, length: Int)

        var column: String {
            switch self {
            case .number(let column, _, _), .category(let column, _, _), .text(let column, _, _): column
            }
        }

        var width: Int {
            switch self {
            case .number: 1
            case .category(_, let levels, let dropsFirst): levels.count - (dropsFirst ? 1 : 0)
            case .text(_, let buckets, _): buckets
            }
        }
    }

    /// What happens to a row in which a feature is missing.
    public enum Missing: String, Sendable {
        /// It is left out.
        case drop
        /// The column's mean stands in.
        case mean
        /// The mean stands in, and a further input says so.
        case indicator
    }

    /// What is predicted.
    public var label: Label
    /// What is known.
    public var features: [Feature]
    /// How missing values are treated.
    public var missing: Missing

    init(_ fields: ConfigurationReader) throws {
        guard let labelFields = try fields.object("label"), let column = try labelFields.string("column") else {
            throw fields.error("label", "must name a column")
        }
        if let levels = try labelFields.strings("levels") {
            guard levels.count >= 2 else { throw labelFields.error("levels", "must hold two levels or more") }
            label = .classes(column: column, levels: levels)
        } else {
            let text = try labelFields.string("positive") ?? "> 0"
            guard let comparison = Comparison(text) else {
                throw labelFields.error("positive", "'\(text)' is not a comparison such as '> 0' or '= yes'")
            }
            label = .binary(column: column, comparison: comparison)
        }
        try labelFields.finish()
        features = try (fields.objects("features") ?? []).map(Self.feature)
        guard !features.isEmpty else { throw fields.error("features", "must name at least one column") }
        let choice = try fields.choice("missing", of: ["drop", "mean", "indicator"], default: "drop")
        missing = Missing(rawValue: choice) ?? .drop
        try fields.finish()
    }

    private static func feature(_ fields: ConfigurationReader) throws -> Feature {
        guard let column = try fields.string("column") else { throw fields.error("column", "is required") }
        defer { _ = fields.value("type") }
        let feature: Feature
        switch try fields.choice("type", of: ["number", "category", "text"], default: "number") {
        case "category":
            let levels = try fields.strings("levels") ?? []
            let dropsFirst = try fields.boolean("drop_first", default: false)
            guard levels.count >= (dropsFirst ? 2 : 1), Set(levels).count == levels.count else {
                throw fields.error("levels", "must hold each level once, and one that is left over")
            }
            feature = .category(column: column, levels: levels, dropsFirst: dropsFirst)
        case "text":
            feature = .text(
                column: column,
                buckets: try fields.integer("buckets", default: 1 << 14, in: 2...(1 << 22)),
                length: try fields.integer("ngrams", default: 2, in: 1...5)
            )
        default:
            feature = .number(
                column: column,
                center: try fields.number("center", default: 0, in: -1e12...1e12),
                scale: try fields.number("scale", default: 1, in: 1e-12...1e12)
            )
        }
        try fields.finish()
        return feature
    }

    /// Inputs of the model.
    public var width: Int {
        let plain = features.reduce(0) { $0 + $1.width }
        return plain + (missing == .indicator ? standardizedWidth(ofMissing: true) : 0)
    }

    /// Logits: one for two classes.
    public var outputCount: Int {
        if case .classes(_, let levels) = label, levels.count > 2 { return levels.count }
        return 1
    }

    /// One more input for each column that can be missing: all but texts.
    private func standardizedWidth(ofMissing: Bool) -> Int {
        features.reduce(0) {
            guard case .text = $1 else { return $0 + 1 }
            return $0
        }
    }

    /// Inputs that are standardised: all but texts and indicators, in their order.
    public var standardizedWidth: Int {
        features.reduce(0) {
            guard case .text = $1 else { return $0 + $1.width }
            return $0
        }
    }
}
