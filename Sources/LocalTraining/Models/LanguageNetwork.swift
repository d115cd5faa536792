/// One batch of token ids, time-major `[T, B]`: position `t * rows + b` is step t of sequence b.
package struct TokenBatch: Equatable, Sendable {
    /// T.
    package var steps: Int
    /// B.
    package var rows: Int
    package var inputs: [Int]
    /// Shape as `inputs`; -1 for a position without a target.
    package var targets: [Int]
    /// For each row, whether it starts from the state in which the batch before left that row; empty for none.
    package var continues: [Bool]

    package init(steps: Int, rows: Int, inputs: [Int], targets: [Int], continues: [Bool] = []) {
        precondition(inputs.count == steps * rows && targets.count == inputs.count, "a batch is steps times rows")
        self.steps = steps
        self.rows = rows
        self.inputs = inputs
        self.targets = targets
        self.continues = continues
    }
}

/// The measures of one pass over a batch, as sums.
package struct LossMeasure: Equatable, Sendable {
    /// Negative log likelihood, in nats.
    package var nll = 0.0
    /// Positions with a target.
    package var tokens = 0
    /// Targets that no ordinary token outscored.
    package var hit1 = 0
    /// Targets that at most two ordinary tokens outscored.
    package var hit3 = 0

    package init() {}
}

/// A network that scores the next token, as training, evaluation and suggestions need it.
///
/// A class, because it owns scratch memory. One thread at a time may use it.
package protocol LanguageNetwork<Value>: AnyObject {
    associatedtype Value: Scalar

    var vocabularySize: Int { get }
    /// The trained parameters, in the order of the layout that travels.
    var parameters: [Value] { get set }
    /// The mean loss's gradient after ``differentiate(_:)``, in the order of `parameters`.
    var gradient: [Value] { get set }
    /// Ids that may be predicted. The others, the specials, do not count when a target is ranked.
    var ordinary: Range<Int> { get set }
    /// The id of the unknown token, which as a target is always a miss.
    var unknown: Int? { get set }
    /// The longest sequence, or `nil` without limit.
    var lengthLimit: Int? { get }

    /// Sums of the loss and of hits.
    func measure(_ batch: TokenBatch) -> LossMeasure
    /// The same, and the gradient of the mean over the batch's targets.
    func differentiate(_ batch: TokenBatch) -> LossMeasure
    /// The scores at every position, `[T * B, V]`.
    func scores(_ batch: TokenBatch) -> [Value]

    /// A context without tokens.
    func emptyContext() -> LanguageContext<Value>
    /// Appends one token to the context; returns the scores of the next one, shape `[V]`.
    func advance(_ context: inout LanguageContext<Value>, by id: Int) -> [Value]
}

/// A network's memory of a text, from which it goes on token by token: r and c, or keys and values of each layer.
package struct LanguageContext<Value: Scalar>: Sendable {
    /// The number of tokens in the context.
    package internal(set) var length = 0
    var memory: [[Value]]
}
