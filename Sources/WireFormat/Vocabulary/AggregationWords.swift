/// How updates are combined.
package enum AggregationRule: String, ClosedWord {
    case mean, median
    case trimmedMean = "trimmed_mean"
    case krum
    case multiKrum = "multi_krum"
    case geometricMedian = "geometric_median"

    /// Whether clients count by their weights; the others count every client alike.
    package var usesWeights: Bool {
        switch self {
        case .mean, .geometricMedian: true
        case .median, .trimmedMean, .krum, .multiKrum: false
        }
    }
}

/// When a version is made.
package enum AggregationMode: String, ClosedWord {
    /// At the end of a round, of updates that started from the same version.
    case synchronous
    /// Of every so many updates, whatever version they started from.
    case buffered
}

/// What a client counts for.
package enum Weighting: String, ClosedWord {
    case uniform, examples
}

/// What an update's weight counts.
package enum WeightUnit: String, ClosedWord {
    case examples, tokens

    /// The one that it is not.
    package var other: WeightUnit {
        switch self {
        case .examples: .tokens
        case .tokens: .examples
        }
    }
}

/// The server's optimiser.
package enum ServerOptimizerName: String, ClosedWord {
    /// FedAvg.
    case sgd
    /// FedAvgM.
    case momentum
    case adagrad, adam, yogi
}

/// What happens to an update that stands out.
package enum AnomalyAction: String, ClosedWord {
    case report
    /// It does not count.
    case exclude
    /// Nor is its client asked again.
    case quarantine
}
