import StrictJSON

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
                if value.isEmpty || (isOrder && TableCell.number(value) == nil) { return nil }
                return
            }
            return nil
        }

        /// Whether a cell fulfils it; `nil` where it cannot be said: no value, or text where the right side is a number.
        ///
        /// A right side that is no number is compared with the cell as text, without the blanks around it.
        func holds(for cell: String) -> Bool? {
            guard let right = TableCell.number(value) else {
                let isEqual = TableCell.matches(cell, level: value)
                if !isEqual && TableCell.isMissing(cell) { return nil }
                return relation == "=" ? isEqual : !isEqual
            }
            guard let left = TableCell.number(cell) else { return nil }
            return switch relation {
            case ">": left > right
            case ">=": left >= right
            case "<": left < right
            case "<=": left <= right
            case "=": left == right
            default: left != right
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

    /// What happens to a row in which a feature is missing, and to one with a cell that cannot be read.
    public enum Missing: String, CaseIterable, Sendable {
        /// It is left out, and so is a row that cannot be read.
        case drop
        /// The mean of the device's column stands in; with federated standardization, that of all columns.
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

    /// Reads the field `schema`.
    init(in fields: FieldReader) {
        if !fields.has("schema") { fields.report("schema", "is required: the label's and the features' columns") }
        self = fields.object("schema") { Self(reading: $0) }
    }

    private init(reading fields: FieldReader) {
        if !fields.has(at: "label/column") { fields.report("label", "must name a column") }
        label = fields.object("label") { Label(reading: $0) }
        features = fields.objects("features", countLimit: .max) { Feature(reading: $0) }
        if features.isEmpty { fields.report("features", "must name at least one column") }
        missing = fields.choice("missing", default: .drop)
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

extension TableSchema.Label {
    fileprivate init(reading fields: FieldReader) {
        let column = fields.string("column", lengthLimit: .max)
        if let levels = fields.stringList("levels", countLimit: .max) {
            if levels.count < 2 { fields.report("levels", "must hold two levels or more") }
            self = .classes(column: column, levels: levels)
            return
        }
        let text = fields.string("positive", default: "> 0", lengthLimit: .max)
        if let comparison = TableSchema.Comparison(text) {
            self = .binary(column: column, comparison: comparison)
        } else {
            fields.report("positive", "'\(text)' is not a comparison such as '> 0' or '= yes'")
            self = .classes(column: column, levels: [])
        }
    }
}

extension TableSchema.Feature {
    private enum Kind: String, CaseIterable {
        case number, category, text
    }

    fileprivate init(reading fields: FieldReader) {
        let column = fields.string("column", lengthLimit: .max)
        switch fields.choice("type", default: Kind.number) {
        case .category:
            let levels = fields.stringList("levels", countLimit: .max) ?? []
            let dropsFirst = fields.boolean("drop_first", default: false)
            if levels.count < (dropsFirst ? 2 : 1) || Set(levels).count < levels.count {
                fields.report("levels", "must hold each level once, and one that is left over")
            }
            self = .category(column: column, levels: levels, dropsFirst: dropsFirst)
        case .text:
            self = .text(
                column: column,
                buckets: fields.integer("buckets", default: 1 << 14, in: 2...(1 << 22)),
                length: fields.integer("ngrams", default: 2, in: 1...5)
            )
        case .number:
            self = .number(
                column: column,
                center: fields.number("center", default: 0, in: -1e12...1e12),
                scale: fields.number("scale", default: 1, in: 1e-12...1e12)
            )
        }
    }
}
