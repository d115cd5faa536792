public import Tensors

/// Turns the aggregate of a round into the next parameters, by a rule that may remember earlier rounds.
///
/// Δ̄ is the aggregate of local minus global, the pseudo-gradient of Reddi et al. 2021 (arXiv:2003.00295, Algorithm 2) with
/// its sign turned. What a rule remembers are vectors as long as the model; arithmetic is in `Double`, and each number is
/// rounded to `Float` once before it is used again, so that a state that went through a file continues to the bit.
public protocol ServerOptimizer: Sendable {
    /// What the rule remembers, by name and first value; empty when it remembers nothing.
    var moments: [OptimizerMoment] { get }

    /// Takes one step.
    ///
    /// - Parameters:
    ///   - parameters: Shape `[parameterCount]`; the next ones on return.
    ///   - aggregate: Δ̄, shape `[parameterCount]`, parameter units.
    ///   - state: What the rule remembers; the next round's on return.
    func step(_ parameters: inout [Float], aggregate: [Double], state: inout OptimizerState)
}

/// A vector that an optimiser remembers, and the value that all its coordinates start from.
public struct OptimizerMoment: Equatable, Sendable {
    /// `first_moment` or `second_moment`.
    public var name: String
    /// The value before the first round.
    public var initialValue: Float
}

/// What an optimiser remembers between rounds: for each moment a vector as long as the model.
public struct OptimizerState: Equatable, Sendable {
    /// Shape `[parameterCount]` each.
    public var moments: [String: [Float]]

    /// The state before the first round.
    public init(initialFor optimizer: any ServerOptimizer, parameterCount: Int) {
        moments = Dictionary(
            uniqueKeysWithValues: optimizer.moments.map {
                ($0.name, [Float](repeating: $0.initialValue, count: parameterCount))
            }
        )
    }

    /// Reads a state from the file that ``vector(layout:)`` gave.
    ///
    /// - Throws: ``AggregationError/stateMismatch(reason:)`` when the file is not this optimiser's for this layout.
    public init(
        _ file: ParameterVector,
        optimizer: any ServerOptimizer,
        layout: ParameterLayout
    ) throws(AggregationError) {
        let names = optimizer.moments.map(\.name)
        guard file.layout == Self.layout(names, layout) else {
            throw .stateMismatch(reason: "the optimizer's state does not fit the model and the optimizer")
        }
        moments = [:]
        for (index, name) in names.sorted().enumerated() {
            let start = index * layout.parameterCount
            moments[name] = Array(file.values[start..<(start + layout.parameterCount)])
        }
    }

    /// The state as tensors named `MOMENT/TENSOR`.
    public func vector(layout: ParameterLayout) -> ParameterVector {
        let names = moments.keys.sorted()
        var values: [Float] = []
        values.reserveCapacity(names.count * layout.parameterCount)
        for name in names { values += moments[name] ?? [] }
        return ParameterVector(layout: Self.layout(names, layout), values: values)
    }

    /// One prefix keeps the order of its tensors, and prefixes are sorted: the vectors lie one after another.
    private static func layout(_ names: [String], _ layout: ParameterLayout) -> ParameterLayout {
        ParameterLayout(
            names.flatMap { name in
                layout.tensors.map { TensorSpecification(name: name + "/" + $0.name, shape: $0.shape) }
            }
        )
    }
}
