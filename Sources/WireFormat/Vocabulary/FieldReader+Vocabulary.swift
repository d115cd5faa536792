package import StrictJSON
package import Tensors

extension FieldReader {
    /// A text of a form that is checked; `nil` where it is missing or has another, which is reported.
    package func checked<Value: CheckedText>(_ name: String, as type: Value.Type = Value.self) -> Value? {
        guard has(name) else {
            report(name, "is required")
            return nil
        }
        return optionalChecked(name)
    }

    /// A text of a form that is checked, or nothing.
    package func optionalChecked<Value: CheckedText>(_ name: String, as type: Value.Type = Value.self) -> Value? {
        guard let text = optionalString(name, lengthLimit: .max) else { return nil }
        guard let value = Value(text) else {
            report(name, "'\(PrintableText.escaped(text, limit: 100))' \(Value.rule)")
            return nil
        }
        return value
    }

    /// A word of a closed set; `nil` where it is missing or none of them, which is reported.
    package func word<Word: RawRepresentable & CaseIterable>(_ name: String, as type: Word.Type = Word.self) -> Word?
    where Word.RawValue == String {
        guard has(name) else {
            report(name, "is required")
            return nil
        }
        return optionalWord(name)
    }

    /// A word of a closed set, or nothing.
    package func optionalWord<Word: RawRepresentable & CaseIterable>(
        _ name: String,
        as type: Word.Type = Word.self
    ) -> Word? where Word.RawValue == String {
        guard let text = optionalString(name, lengthLimit: .max) else { return nil }
        guard let word = Word(rawValue: text) else {
            let known = Word.allCases.map(\.rawValue).joined(separator: ", ")
            report(name, "'\(PrintableText.escaped(text, limit: 100))' is not one of \(known)")
            return nil
        }
        return word
    }

    /// Seconds that can be waited for; `nil` where they are missing or out of range, which is reported.
    package func duration(_ name: String) -> PeerDuration? {
        PeerDuration(seconds: number(name, in: 0...PeerDuration.limitSeconds))
    }

    /// Seconds that can be waited for, or nothing.
    package func optionalDuration(_ name: String) -> PeerDuration? {
        optionalNumber(name, in: 0...PeerDuration.limitSeconds).flatMap { PeerDuration(seconds: $0) }
    }

    /// The names and shapes of tensors; `nil` where they are missing or no layout, which is reported.
    package func layout(_ name: String, parameterLimit: Int) -> ParameterLayout? {
        guard has(name) else {
            report(name, "is required")
            return nil
        }
        let tensors = objects(name, countLimit: ParameterLayout.tensorLimit) { fields in
            TensorSpecification(
                name: fields.string("name", lengthLimit: 500),
                shape: fields.integers("shape", countLimit: 16, in: 1...(1 << 53))
            )
        }
        do {
            let layout = try ParameterLayout(checking: tensors)
            guard (1...max(1, parameterLimit)).contains(layout.parameterCount) else {
                report(name, "\(layout.parameterCount) parameters are outside 1 to \(parameterLimit)")
                return nil
            }
            return layout
        } catch {
            report(name, PrintableText.escaped(error.description, limit: 200))
            return nil
        }
    }
}

extension ParameterLayout {
    /// Tensors that a peer may name, at most.
    package static let tensorLimit = 100_000
}
