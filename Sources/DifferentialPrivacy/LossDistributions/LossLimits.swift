/// The limits of arithmetic in the present task, for arithmetic of the same question on another thread.
package struct LossLimits: Sendable {
    private let cells = ComposedLoss.cellLimit
    private let standard = LossAllowance.standard

    package init() {}

    /// Computes within these limits.
    package func apply<Value>(_ body: () throws -> Value) rethrows -> Value {
        try ComposedLoss.$cellLimit.withValue(cells) {
            try LossAllowance.$standard.withValue(standard) { try body() }
        }
    }
}
