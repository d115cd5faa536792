package import Foundation
import StrictJSON

/// Compares `DifferentialPrivacy` with reference values of the schema `fl-privacy-vectors/1`.
package enum ReferenceVectors {
    /// The outcome of one case.
    package struct Outcome: Sendable {
        /// `pass`, `fail` or `unsupported`.
        package enum Status: String, Sendable { case pass, fail, unsupported }
        /// The case's id.
        package let id: String
        /// Its kind.
        package let kind: String
        /// Whether all judged values are within their tolerances.
        package let status: Status
        /// One sentence for each value outside its tolerance.
        package let failures: [String]
        /// The computed values, with the keys of `expect`.
        let computed: [String: any Sendable]

        /// `{"id":…,"computed":{…},"kind":…,"status":…}` on one line.
        package var line: String {
            var object: [String: Any] = ["id": id, "kind": kind, "status": status.rawValue, "computed": computed]
            if !failures.isEmpty { object["failures"] = failures }
            return JSONValue(foundation: object)?.text ?? "{}"
        }
    }

    /// A file that is not of the schema.
    package struct FormatError: Error, CustomStringConvertible {
        /// What is wrong.
        package let description: String
    }

    /// Computes every case of a file.
    ///
    /// - Throws: ``FormatError`` unless the data are JSON of the schema with cases that have `id`, `kind`, `params` and
    ///   `expect`.
    package static func evaluate(_ data: Data) throws -> [Outcome] {
        do { _ = try JSONValue(parsing: Array(data)) } catch {
            throw FormatError(description: "is not valid JSON: \(error)")
        }
        guard let file = try? JSONSerialization.jsonObject(with: data) as? [String: Any] else {
            throw FormatError(description: "is not a JSON object")
        }
        guard file["schema"] as? String == "fl-privacy-vectors/1" else {
            throw FormatError(description: "has another schema than fl-privacy-vectors/1")
        }
        guard let cases = file["cases"] as? [[String: Any]] else {
            throw FormatError(description: "has no array of cases")
        }
        return try cases.map { item in
            guard let id = item["id"] as? String, let kind = item["kind"] as? String,
                let parameters = item["params"] as? [String: Any], let expected = item["expect"] as? [String: Any]
            else { throw FormatError(description: "has a case without id, kind, params or expect") }
            return outcome(
                id: id,
                kind: kind,
                parameters: Parameters(values: parameters),
                expected: expected,
                tolerance: item["tolerance"] as? [String: Any] ?? [:]
            )
        }
    }

    private static func outcome(
        id: String,
        kind: String,
        parameters: Parameters,
        expected: [String: Any],
        tolerance: [String: Any]
    ) -> Outcome {
        do {
            guard let result = try VectorKinds.compute(kind, parameters, expected) else {
                return Outcome(id: id, kind: kind, status: .unsupported, failures: [], computed: [:])
            }
            var computed: [String: any Sendable] = [:]
            for key in expected.keys { computed[key] = result.values[key] ?? NSNull() }
            let failures = VectorTolerance(tolerance: tolerance, expected: expected).failures(of: result)
            return Outcome(
                id: id,
                kind: kind,
                status: failures.isEmpty ? .pass : .fail,
                failures: failures,
                computed: computed
            )
        } catch {
            return Outcome(id: id, kind: kind, status: .fail, failures: ["\(error)"], computed: [:])
        }
    }

    /// A case's parameters, read by name.
    struct Parameters {
        let values: [String: Any]

        func number(_ name: String) throws -> Double {
            guard let value = (values[name] as? NSNumber)?.doubleValue else {
                throw FormatError(description: "the parameter \(name) is missing or not a number")
            }
            return value
        }

        func number(_ name: String, default fallback: Double) -> Double {
            (values[name] as? NSNumber)?.doubleValue ?? fallback
        }

        func integer(_ name: String) throws -> Int {
            let value = try number(name)
            guard let whole = Int(exactly: value) else {
                throw FormatError(description: "the parameter \(name) is not a whole number")
            }
            return whole
        }

        func numbers(_ name: String) throws -> [Double] {
            guard let list = values[name] as? [NSNumber] else {
                throw FormatError(description: "the parameter \(name) is missing or not an array of numbers")
            }
            return list.map(\.doubleValue)
        }
    }

    /// Computed values, and those that a rule judges.
    struct Result {
        var values: [String: any Sendable]
        /// The values that `x_min ≤ x ≤ x_max` judges, by x.
        var judged: [String: Double] = [:]
    }
}

/// The comparison of computed with expected values, as the schema's conventions say.
struct VectorTolerance {
    let tolerance: [String: Any]
    let expected: [String: Any]

    func failures(of result: ReferenceVectors.Result) -> [String] {
        var failures: [String] = []
        for (key, want) in expected.sorted(by: { $0.key < $1.key }) {
            if want is NSNull || isInformative(key) { continue }
            if let (base, isLower) = bound(key), let limit = (want as? NSNumber)?.doubleValue {
                guard let value = result.judged[base] ?? result.values[base] as? Double else {
                    failures.append("\(base) was not computed")
                    continue
                }
                if isLower && value < limit { failures.append("\(base) is \(value), under \(limit): unsound") }
                if !isLower && value > limit { failures.append("\(base) is \(value), over \(limit): loose") }
                continue
            }
            if key.hasSuffix("_accept"), let range = want as? [NSNumber], range.count == 2 {
                let base = String(key.dropLast(7))
                let value = result.values[base] as? Double
                if !(value.map { $0 >= range[0].doubleValue && $0 <= range[1].doubleValue } ?? false) {
                    failures.append("\(base) is \(String(describing: value)), outside \(range)")
                }
                continue
            }
            // If a rule or an accepted range judges a quantity, its reference value is information only.
            if tolerance["rule"] != nil || expected[key + "_accept"] != nil { continue }
            compare(key, result.values[key], want, &failures)
        }
        return failures
    }

    private func isInformative(_ key: String) -> Bool {
        (tolerance[key] as? String)?.hasPrefix("informative") ?? false
    }

    private func bound(_ key: String) -> (String, Bool)? {
        if key.hasSuffix("_min") { return (String(key.dropLast(4)), true) }
        if key.hasSuffix("_max") { return (String(key.dropLast(4)), false) }
        return nil
    }

    private func compare(_ key: String, _ value: Any?, _ want: Any, _ failures: inout [String]) {
        switch (value, want) {
        case (let value as [Double], let want as [NSNumber]):
            guard value.count == want.count else { return failures.append("\(key) has \(value.count) values") }
            for (index, pair) in zip(value, want).enumerated() {
                compareNumber("\(key)[\(index)]", pair.0, pair.1.doubleValue, rule: key, &failures)
            }
        case (let value as [String: Double], let want as [String: NSNumber]):
            for (name, number) in want.sorted(by: { $0.key < $1.key }) {
                compareNumber("\(key)[\(name)]", value[name] ?? .nan, number.doubleValue, rule: key, &failures)
            }
        case (let value as Bool, let want as NSNumber):
            if value != want.boolValue { failures.append("\(key) is \(value)") }
        case (let value as Double, let want as NSNumber):
            compareNumber(key, value, want.doubleValue, rule: key, &failures)
        case (let value as Int, let want as NSNumber):
            compareNumber(key, Double(value), want.doubleValue, rule: key, &failures)
        default: failures.append("\(key) was not computed")
        }
    }

    private func compareNumber(
        _ name: String,
        _ value: Double,
        _ want: Double,
        rule key: String,
        _ failures: inout [String]
    ) {
        var relative = (tolerance["rel"] as? NSNumber)?.doubleValue ?? 1e-6
        var absolute = (tolerance["abs"] as? NSNumber)?.doubleValue ?? 0
        var upperSlack = 0.0
        if let words = tolerance[key] as? String {
            if words.hasPrefix("exact") { (relative, absolute) = (0, 0) }
            if let found = words.firstMatch(of: /rel ([0-9.e-]+)/) { relative = Double(found.1) ?? relative }
            if let found = words.firstMatch(of: /v\+([0-9.e-]+)\]/) { upperSlack = Double(found.1) ?? 0 }
        }
        let allowed = max(absolute, relative * abs(want))
        guard value >= want - allowed, value <= want + max(allowed, upperSlack) else {
            return failures.append("\(name) is \(value), not \(want)")
        }
    }
}
