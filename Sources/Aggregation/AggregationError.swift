/// Why updates could not be aggregated.
public enum AggregationError: Error, Equatable, Sendable {
    /// There is nothing to average.
    case noUpdates
    /// A value is beyond the declared bound, or not finite.
    case valueOutOfRange(index: Int, bound: Double)
    /// The weighted sum could leave 64 bits.
    case sumTooLarge(bound: Double, totalWeight: Int)
    /// The file's tensors are not the model's.
    case layoutMismatch(path: String)
    /// A file could not be read.
    case unreadable(path: String, reason: String)
    /// Fewer updates than the rule needs.
    case tooFewUpdates(minimum: Int, actual: Int)
    /// What an optimiser remembers is not for this model or this optimiser.
    case stateMismatch(reason: String)
}
