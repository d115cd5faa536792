package import UpdateCompression

/// What a client sends.
package enum Submission: String, ClosedWord {
    /// Local minus global parameters.
    case delta
    /// The local parameters.
    case weights
    /// The mean gradient at the global parameters.
    case gradient
}

/// What clients and server compute together.
package enum TrainingAlgorithm: String, ClosedWord {
    case fedavg, scaffold
}

/// A device's optimiser.
package enum LocalOptimizerName: String, ClosedWord {
    case sgd, momentum, adam, adamw
}

/// How a model's file is written on its way to a client.
package enum ModelEncoding: String, ClosedWord {
    case f32, f16, int8
}

extension UpdateEncoding {
    /// The same way of writing values.
    package init(_ encoding: ModelEncoding) {
        switch encoding {
        case .f32: self = .f32
        case .f16: self = .f16
        case .int8: self = .int8
        }
    }
}

/// How far a device is with its work.
package enum WorkPhase: String, ClosedWord {
    case downloading, training, uploading
}

extension AssignmentState {
    /// A client at work.
    package init(_ phase: WorkPhase) {
        switch phase {
        case .downloading: self = .downloading
        case .training: self = .training
        case .uploading: self = .uploading
        }
    }
}

/// Why a device gives its work up, as the server is told.
package enum FailureCode: String, ClosedWord {
    case notEligible = "not_eligible"
    case noData = "no_data"
    case trainingFailed = "training_failed"
    case privacyRefused = "privacy_refused"
    case outOfMemory = "out_of_memory"
    case cancelled
}
