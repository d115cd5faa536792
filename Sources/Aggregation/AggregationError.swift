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
    /// A file could not be read: by the system's `errno` where it is the disk's fault, else because of what is in it.
    case unreadable(path: String, reason: String, errno: Int32? = nil)
    /// Fewer updates than the rule needs.
    case tooFewUpdates(minimum: Int, actual: Int)
    /// What an optimiser remembers is not for this model or this optimiser.
    case stateMismatch(reason: String)
}

extension AggregationError: CustomStringConvertible {
    /// One sentence for people, without a path.
    public var description: String {
        switch self {
        case .noUpdates: "there is no update"
        case .valueOutOfRange(let index, let bound):
            "an update's value at place \(index) is not finite, or over the bound of \(bound)"
        case .sumTooLarge(let bound, let weight):
            "values up to \(bound) with weights that add up to \(weight) do not fit the sum"
        case .layoutMismatch: "an update's tensors are not those of the model"
        case .unreadable(_, let reason, let code):
            code == nil ? "an update's file is not what was accepted: \(reason)" : "an update's file cannot be read"
        case .tooFewUpdates(let minimum, let actual):
            "\(actual) updates are fewer than the rule's minimum of \(minimum)"
        case .stateMismatch(let reason): "what the server's optimiser remembers does not fit: \(reason)"
        }
    }
}
