/// One tensor of a vector, read-only: its shape, and its values in row-major order from index 0.
public struct TensorView: RandomAccessCollection, Sendable {
    /// The tensor's name.
    public let name: String
    /// The extent of each dimension; empty for a scalar.
    public let shape: [Int]
    private let values: ArraySlice<Float>

    init(name: String, shape: [Int], values: ArraySlice<Float>) {
        (self.name, self.shape, self.values) = (name, shape, values)
    }

    /// Always 0.
    public var startIndex: Int { 0 }
    /// The number of values.
    public var endIndex: Int { values.count }
    /// The value at a place in row-major order.
    public subscript(position: Int) -> Float { values[values.startIndex + position] }

    /// The value of a matrix of shape `[rows, columns]`.
    ///
    /// - Precondition: The tensor has two dimensions, and both indices are inside it.
    public subscript(row: Int, column: Int) -> Float {
        precondition(shape.count == 2, "this tensor is no matrix")
        precondition(row >= 0 && row < shape[0] && column >= 0 && column < shape[1], "outside of the matrix")
        return self[row * shape[1] + column]
    }

    /// Calls with the values as they lie in memory.
    public func withContiguousStorageIfAvailable<Result>(
        _ body: (UnsafeBufferPointer<Float>) throws -> Result
    ) rethrows -> Result? {
        try values.withContiguousStorageIfAvailable(body)
    }
}

/// Why a tensor cannot be written or changed by its name.
public enum TensorAccessError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The layout has no tensor of that name.
    case unknownTensor(name: String)
    /// Another number of values than the tensor has.
    case wrongCount(name: String, expected: Int, actual: Int)

    /// One sentence for people.
    public var description: String {
        switch self {
        case .unknownTensor(let name): "the model has no tensor '\(name)'"
        case .wrongCount(let name, let expected, let actual):
            "tensor '\(name)' has \(expected) values, and \(actual) were given"
        }
    }
}

extension ParameterVector {
    /// The values of one tensor, or `nil` if the layout has none of that name.
    public subscript(name: String) -> TensorView? {
        guard let index = layout.tensors.firstIndex(where: { $0.name == name }), let range = layout.range(of: name)
        else {
            return nil
        }
        return TensorView(name: name, shape: layout.tensors[index].shape, values: values[range])
    }

    /// Writes all values of one tensor, row-major.
    ///
    /// - Throws: ``TensorAccessError`` if the layout has no such tensor, or the tensor has another number of values.
    public mutating func write(_ name: String, _ new: some Collection<Float>) throws(TensorAccessError) {
        guard let range = layout.range(of: name) else { throw .unknownTensor(name: name) }
        guard new.count == range.count else {
            throw .wrongCount(name: name, expected: range.count, actual: new.count)
        }
        values.replaceSubrange(range, with: new)
    }

    /// Changes one tensor in place: `body` gets the values, row-major, and the shape.
    ///
    /// - Throws: ``TensorAccessError`` if the layout has no such tensor; what `body` throws.
    public mutating func update<Result>(
        _ name: String,
        _ body: (_ values: UnsafeMutableBufferPointer<Float>, _ shape: [Int]) throws -> Result
    ) throws -> Result {
        guard let index = layout.tensors.firstIndex(where: { $0.name == name }), let range = layout.range(of: name)
        else {
            throw TensorAccessError.unknownTensor(name: name)
        }
        return try values.withUnsafeMutableBufferPointer { all in
            try body(UnsafeMutableBufferPointer(rebasing: all[range]), layout.tensors[index].shape)
        }
    }

    /// New parameters minus old ones: what a trainer returns.
    ///
    /// - Precondition: Both have the same layout.
    public static func - (left: Self, right: Self) -> Self {
        precondition(left.layout == right.layout, "the layouts differ")
        return Self(layout: left.layout, values: zip(left.values, right.values).map { $0 - $1 })
    }
}
