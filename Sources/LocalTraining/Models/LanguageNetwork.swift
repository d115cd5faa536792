/// One batch of token ids, time-major `[T, B]`: position `t * rows + b` is step t of sequence b.
package struct TokenBatch: Equatable, Sendable {
    /// T.
    package var steps: Int
    /// B.
    package var rows: Int
    package var inputs: [Int]
    /// -1 is no target.
    package var targets: [Int]
    /// Rows that go on from the state in which the batch before left the same row; empty: none.
    package var continues: [Bool]

    package init(steps: Int, rows: Int, inputs: [Int], targets: [Int], continues: [Bool] = []) {
        precondition(inputs.count == steps * rows && targets.count == inputs.count, "a batch is steps times rows")
        self.steps = steps
        self.rows = rows
        self.inputs = inputs
        self.targets = targets
        self.continues = continues
    }

    /// Positions that have a target.
    var targetCount: Int { targets.reduce(0) { $0 + ($1 >= 0 ? 1 : 0) } }
}

/// What one pass over a batch measured, as sums.
package struct LossMeasure: Equatable, Sendable {
    /// Nats.
    package var nll = 0.0
    /// Positions with a target.
    package var tokens = 0
    /// Targets that no ordinary token outscored.
    package var hit1 = 0
    /// Targets that at most two ordinary tokens outscored.
    package var hit3 = 0

    package init() {}

    static func += (left: inout Self, right: Self) {
        left.nll += right.nll
        left.tokens += right.tokens
        left.hit1 += right.hit1
        left.hit3 += right.hit3
    }
}

/// A network that gives the next token's scores: what training, evaluation and suggestions need of any architecture.
///
/// A class, because it owns scratch memory; used by one thread at a time.
package protocol LanguageNetwork<Value>: AnyObject {
    associatedtype Value: Scalar

    var vocabularySize: Int { get }
    /// The trained parameters, in the order of the layout that travels.
    var parameters: [Value] { get set }
    /// The mean loss's gradient after ``differentiate(_:)``, in the order of `parameters`.
    var gradient: [Value] { get set }
    /// Ids that may be predicted; the others, the specials, are no rivals of a target.
    var ordinary: Range<Int> { get set }
    /// The id that as a target is always a miss.
    var unknown: Int? { get set }
    /// The longest sequence, or `nil` without limit.
    var lengthLimit: Int? { get }

    /// Sums of the loss and of hits.
    func measure(_ batch: TokenBatch) -> LossMeasure
    /// The same, and the gradient of the mean over the batch's targets.
    func differentiate(_ batch: TokenBatch) -> LossMeasure
    /// The scores at every position, `[T * B, V]`.
    func scores(_ batch: TokenBatch) -> [Value]

    /// Remembers nothing yet.
    func emptyContext() -> LanguageContext<Value>
    /// Takes in one token; returns the scores of the next one, `[V]`.
    func advance(_ context: inout LanguageContext<Value>, by id: Int) -> [Value]
}

/// What a network remembers of a text, to go on from it token by token: r and c, or keys and values by layer.
package struct LanguageContext<Value: Scalar>: Sendable {
    /// Tokens taken in.
    package internal(set) var length = 0
    var memory: [[Value]]
}
