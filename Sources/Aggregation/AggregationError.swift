/// Why updates could not be aggregated.
public enum AggregationError: Error, Equatable, Sendable {
    /// The list of updates is empty.
    case noUpdates
    /// A value of an update is beyond the bound or not finite; `index` is its position in the flat vector.
    case valueOutOfRange(index: Int, bound: Double)
    /// The weighted sum could leave 128 bits, or the bound is over ``FixedPointMean/largestValueBound``.
    case sumTooLarge(bound: Double, totalWeight: Int)
    /// The file's tensors are not the model's.
    case layoutMismatch(path: String)
    /// A file could not be read: because of the disk if there is an `errno`, else because of its contents.
    case unreadable(path: String, reason: String, errno: Int32? = nil)
    /// There are fewer updates than the rule needs.
    case tooFewUpdates(minimum: Int, actual: Int)
    /// The stored state of an optimiser belongs to another model or another optimiser.
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
        case .stateMismatch(let reason): "the state of the server's optimiser does not fit: \(reason)"
        }
    }
}
