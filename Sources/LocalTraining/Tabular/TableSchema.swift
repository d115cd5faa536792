import StrictJSON

/// Which columns of a table are features and which is the label (`schema.json`).
///
/// Levels of categories come from here, never from local data, so that all clients agree on the width.
public struct TableSchema: Equatable, Sendable {
    /// The predicted value.
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

        /// Whether a cell fulfils the comparison; `nil` if it is missing, or is text and the right side is a number.
        ///
        /// A right side that is no number is compared as text, without the blanks around the cell.
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
        /// A number; `center` and `scale` are public guesses, used when sums of the column are sent.
        case number(column: String, center: Double, scale: Double)
        /// One input for each level, on request without the first level.
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

    /// How rows with a missing feature, and rows with an unreadable cell, are treated.
    public enum Missing: String, CaseIterable, Sendable {
        /// The row is left out, and so is a row with an unreadable cell.
        case drop
        /// The mean of the device's column replaces the value; with federated standardisation the mean over all devices.
        case mean
        /// The mean replaces the value, and a further input marks that.
        case indicator
    }

    /// The predicted value.
    public var label: Label
    /// The columns from which it is predicted.
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

    /// The number of inputs of the model.
    public var width: Int {
        let plain = features.reduce(0) { $0 + $1.width }
        return plain + (missing == .indicator ? standardizedWidth(ofMissing: true) : 0)
    }

    /// The number of logits; one for two classes.
    public var outputCount: Int {
        if case .classes(_, let levels) = label, levels.count > 2 { return levels.count }
        return 1
    }

    /// The number of inputs for columns that can be missing, which are all but texts.
    private func standardizedWidth(ofMissing: Bool) -> Int {
        features.reduce(0) {
            guard case .text = $1 else { return $0 + 1 }
            return $0
        }
    }

    /// The number of inputs that are standardised: all but texts and indicators.
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
                fields.report("levels", "must hold each level once, and at least one, or two with drop_first")
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
