import WireFormat

/// Why an external trainer's work was not taken; nothing was sent, and the slot is freed with ``failureCode``.
public struct ExternalTrainerError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The rule that was broken.
    public enum Rule: String, Sendable, CaseIterable {
        /// The command could not be started.
        case start
        /// It ended with an exit code that is not 0.
        case exitCode = "exit_code"
        /// A signal ended it, such as a crash.
        case signal
        /// It did not end by the deadline and was stopped.
        case deadline
        /// `metrics.json` is missing or not as described.
        case metrics
        /// `update/model.safetensors` is missing, cut off or no safetensors file.
        case file
        /// A tensor is missing, or one is there that the model has not.
        case names
        /// A tensor has another shape than the model's.
        case shape
        /// A tensor is not F32.
        case dataType = "dtype"
        /// A value is NaN or infinite.
        case finite
        /// `kind` is neither `delta` nor `weights`.
        case kind
        /// `base` is not the SHA-256 of the model file.
        case base
        /// The client was stopped.
        case cancelled
    }

    /// The rule.
    public var rule: Rule
    /// What was found, where, and what was expected.
    public var detail: String
    /// What the server is told: one of the codes of a failure report.
    public var failureCode: String { failure.rawValue }
    let failure: FailureCode

    init(_ rule: Rule, _ detail: String, failure: FailureCode = .trainingFailed) {
        self.rule = rule
        self.detail = detail
        self.failure = failure
    }

    /// The rule and what was found.
    public var description: String { "the external trainer broke rule '\(rule.rawValue)': \(detail)" }

    /// What an exit code means.
    static func exit(_ code: Int32) -> ExternalTrainerError {
        let (meaning, failure): (String, FailureCode) =
            switch code {
            case 10: ("not enough data", .noData)
            case 11: ("numeric failure", .trainingFailed)
            case 12: ("out of memory", .outOfMemory)
            case 13: ("deadline, nothing usable", .trainingFailed)
            case 14: ("model not understood", .notEligible)
            case 64: ("usage", .trainingFailed)
            case 75: ("try again later", .cancelled)
            case 126, 127: ("the command cannot be run", .trainingFailed)
            default: ("failure", .trainingFailed)
            }
        return ExternalTrainerError(.exitCode, "exit code \(code): \(meaning)", failure: failure)
    }
}
