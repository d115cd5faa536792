package import StrictJSON

/// `POST /v1/runs/{run}/models/{version}/metrics`: what somebody measured of a model version.
package struct MetricsReport: Codable, Equatable, Sendable {
    package static let countLimit = 100
    /// Who measures where nobody else is named: the operator, on data that no client has.
    package static let heldOut = "held-out"
    /// Who measured; one report a source and version, a later one replaces it.
    package var source: String
    /// Values by name; names of letters, digits, `_`, `.` and `-`.
    package var metrics: [String: Double]

    package init(metrics: [String: Double], source: String = heldOut) {
        self.metrics = metrics
        self.source = source
    }

    package static func read(_ document: JSONValue) throws(DocumentError) -> Self {
        try FieldReader.read(document) { fields in
            let source = fields.string("source", default: heldOut)
            if !isName(source) { fields.report("source", "must be a name of \(nameRule)") }
            let metrics = fields.object("metrics") { reader in
                var values: [String: Double] = [:]
                for name in reader.names(limit: countLimit) {
                    if !isName(name) { reader.report(name, "must be a name of \(nameRule)") }
                    values[name] = reader.number(name, in: -1e300...1e300)
                }
                return values
            }
            if metrics.isEmpty { fields.report("metrics", "must hold at least one number, such as accuracy") }
            return Self(metrics: metrics, source: source)
        }
    }

    private static let nameRule = "1 to 64 letters, digits, '_', '.' or '-'"

    private static func isName(_ text: String) -> Bool {
        let letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-".utf8
        return (1...64).contains(text.utf8.count) && text.utf8.allSatisfy(letters.contains)
    }
}
