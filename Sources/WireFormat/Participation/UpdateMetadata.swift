/// Names of fields in the metadata of an update that more than one side reads.
package enum UpdateMetadata {
    /// Whether the update's norm was within C before it was clipped, `1` or `0`: policy `adaptive` follows their noisy share.
    package static let withinNorm = "within_norm"
    /// SHA-256 of the model that the update started from.
    package static let base = "base"
    /// What the update stands for, in examples.
    package static let exampleCount = "num_examples"
    /// The same in tokens, where the run's `aggregation.weight_unit` says so.
    package static let tokenCount = "num_tokens"
    /// The largest number of examples or tokens that one update may stand for.
    package static let countLimit = 1_000_000_000_000

    /// What the update is: a ``Submission``.
    package static let kind = "kind"

    /// The field that says what an update stands for.
    package static func count(_ unit: WeightUnit) -> String {
        switch unit {
        case .examples: exampleCount
        case .tokens: tokenCount
        }
    }

    /// What the metadata of a private run's update are named, with values as long as any: their length must not depend on
    /// what a client has.
    package static func planned(_ specification: RunSpecification, baseSHA256: String) -> [String: String] {
        var metadata = [kind: specification.training.submit.rawValue, base: baseSHA256]
        metadata[count(specification.aggregation.weightUnit)] = "1"
        if specification.privacy.isAdaptive { metadata[withinNorm] = "1" }
        return metadata
    }
}
