public import Tensors

/// Turns the aggregate of a round into the next parameters, by a rule that may keep state from round to round.
///
/// Δ̄ is the aggregate of local minus global, which is the negative pseudo-gradient of Reddi et al. 2021 (arXiv:2003.00295,
/// Algorithm 2). The state consists of vectors as long as the model. Arithmetic is in `Double`, and each number is rounded to `Float`
/// once before it is used again, so that a state read from a file continues with the same bits.
public protocol ServerOptimizer: Sendable {
    /// The vectors of the rule's state, by name and first value; empty for a rule without state.
    var moments: [OptimizerMoment] { get }

    /// Takes one step of some coordinates. The step of a coordinate must depend on no other coordinate.
    ///
    /// - Parameters:
    ///   - parameters: Some parameters; the next ones on return.
    ///   - aggregate: Δ̄ of the same coordinates, parameter units.
    ///   - moments: The state of the same coordinates, in the order of ``moments``; the next round's on return.
    func step(
        _ parameters: UnsafeMutableBufferPointer<Float>,
        aggregate: UnsafePointer<Double>,
        moments: [UnsafeMutablePointer<Float>]
    )
}

extension ServerOptimizer {
    /// Receives a range whose parameters will not change again; the pointer is to the first parameter of the whole vector.
    public typealias StepObserver = @Sendable (_ range: Range<Int>, _ parameters: UnsafePointer<Float>) -> Void

    /// Takes one step of a whole vector.
    ///
    /// - Parameters:
    ///   - parameters: Shape `[parameterCount]`; the next ones on return.
    ///   - aggregate: Δ̄, shape `[parameterCount]`, parameter units.
    ///   - state: The rule's state; the next round's on return.
    public func step(_ parameters: inout [Float], aggregate: [Double], state: inout OptimizerState) {
        precondition(parameters.count == aggregate.count, "counts differ")
        stepping(&parameters, state: &state) { receiver in
            var block = aggregate
            block.withUnsafeMutableBufferPointer { values in
                guard let base = values.baseAddress else { return }
                receiver(0..<values.count, base)
            }
        }
    }

    /// Takes the step block by block while the aggregate is being made, so that the aggregate never exists as a whole.
    ///
    /// - Parameters:
    ///   - parameters: Shape `[parameterCount]`; the next ones on return. After an error they are of no use.
    ///   - state: The rule's state; the next round's on return.
    ///   - observer: Receives each block right after its step, on the thread that took the step.
    ///   - body: Makes the aggregate and passes every block of it to the receiver once, from any thread.
    /// - Returns: What the body returns.
    /// - Throws: What the body throws.
    public func stepping<Result, Failure: Error>(
        _ parameters: inout [Float],
        state: inout OptimizerState,
        observer: @escaping StepObserver = { _, _ in },
        _ body: (@escaping FixedPointMean.Receiver) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        let count = parameters.count
        let vectors = moments.map { moment in
            guard let values = state.moments.removeValue(forKey: moment.name), values.count == count else {
                preconditionFailure("the state is another optimiser's")
            }
            let space = UnsafeMutablePointer<Float>.allocate(capacity: count)
            space.initialize(from: values, count: count)
            return space
        }
        defer {
            for (moment, vector) in zip(moments, vectors) {
                state.moments[moment.name] = Array(UnsafeBufferPointer(start: vector, count: count))
                vector.deallocate()
            }
        }
        return try parameters.withUnsafeMutableBufferPointer { buffer throws(Failure) -> Result in
            let targets = UncheckedVectors(parameters: buffer, moments: vectors)
            return try body { range, aggregate in
                self.step(
                    UnsafeMutableBufferPointer(rebasing: targets.parameters[range]),
                    aggregate: aggregate,
                    moments: targets.moments.map { $0 + range.lowerBound }
                )
                if let base = targets.parameters.baseAddress { observer(range, base) }
            }
        }
    }
}

/// Vectors that threads change block by block.
private struct UncheckedVectors: @unchecked Sendable {
    // SAFETY: every block is given away once, and all threads end before the vectors do.
    let parameters: UnsafeMutableBufferPointer<Float>
    let moments: [UnsafeMutablePointer<Float>]
}

/// A vector of an optimiser's state, and the first value of its coordinates.
public struct OptimizerMoment: Equatable, Sendable {
    /// `first_moment` or `second_moment`.
    public var name: String
    /// The value before the first round.
    public var initialValue: Float
}

/// An optimiser's state between rounds: for each moment a vector as long as the model.
public struct OptimizerState: Equatable, Sendable {
    /// The vectors by name, shape `[parameterCount]` each.
    public var moments: [String: [Float]]

    /// The state before the first round.
    public init(initialFor optimizer: any ServerOptimizer, parameterCount: Int) {
        moments = Dictionary(
            uniqueKeysWithValues: optimizer.moments.map {
                ($0.name, [Float](repeating: $0.initialValue, count: parameterCount))
            }
        )
    }

    /// Reads a state from the tensors of ``vector(layout:)``.
    ///
    /// - Throws: ``AggregationError/stateMismatch(reason:)`` if the tensors are not this optimiser's for this layout.
    public init(
        _ file: ParameterVector,
        optimizer: any ServerOptimizer,
        layout: ParameterLayout
    ) throws(AggregationError) {
        let names = optimizer.moments.map(\.name)
        guard file.layout == Self.layout(names, layout) else {
            throw .stateMismatch(reason: "its tensors are not those of this optimiser and model")
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

    /// The layout of a state.
    ///
    /// Tensors are sorted by moment and then by name, so the moments' vectors follow each other.
    private static func layout(_ names: [String], _ layout: ParameterLayout) -> ParameterLayout {
        ParameterLayout(
            names.flatMap { name in
                layout.tensors.map { TensorSpecification(name: name + "/" + $0.name, shape: $0.shape) }
            }
        )
    }
}
