/// What a run makes: a model, or counts.
package enum RunKind: String, ClosedWord {
    case training, analytics
}

/// Where a run stands.
public enum RunPhase: String, ClosedWord {
    case created, running, paused, completed, cancelled, failed

    /// Whether it may still open rounds.
    package var isOpen: Bool { self == .running || self == .paused }
    /// Whether nothing more will happen.
    package var isFinal: Bool { self == .completed || self == .cancelled || self == .failed }
}

/// What a round makes.
public enum RoundKind: String, ClosedWord {
    case training, analytics, evaluation

    package init(of kind: RunKind) {
        switch kind {
        case .training: self = .training
        case .analytics: self = .analytics
        }
    }
}

/// The phase of a round attempt.
public enum RoundPhase: String, ClosedWord {
    case selecting, reporting, aggregating, committed, abandoned

    /// Whether clients may still deliver.
    package var isCollecting: Bool { self == .selecting || self == .reporting }
    /// Whether nothing more will happen.
    package var isFinal: Bool { self == .committed || self == .abandoned }
}

/// Where one client's part in a round stands.
package enum AssignmentState: String, ClosedWord {
    case assigned, downloading, training, uploading
    case accepted, rejected, failed, expired, superseded

    /// Whether an update is still awaited.
    package var isLive: Bool {
        switch self {
        case .assigned, .downloading, .training, .uploading: true
        case .accepted, .rejected, .failed, .expired, .superseded: false
        }
    }

    /// The place of a phase of work in its order; `nil` for an end.
    package var phasePlace: Int? { [.assigned, .downloading, .training, .uploading].firstIndex(of: self) }
}

/// What an assignment asks for.
package enum WorkKind: String, ClosedWord {
    /// Train and send what changed.
    case train
    /// Measure the model on held-out data and send sums.
    case evaluate
    /// Count or vote: an analytics run.
    case analyze
}
