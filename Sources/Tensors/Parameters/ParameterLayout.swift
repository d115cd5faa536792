/// The name and shape of one tensor of a model.
public struct TensorSpecification: Hashable, Sendable, Codable {
    /// The tensor's name, unique within its layout.
    public var name: String
    /// Row-major shape, every extent at least 1; an empty shape is a scalar.
    public var shape: [Int]

    /// Creates a specification.
    public init(name: String, shape: [Int]) {
        self.name = name
        self.shape = shape
    }

    /// The product of the extents.
    public var elementCount: Int { shape.reduce(1, *) }

    /// The product of the extents; `nil` if an extent is less than 1 or the product does not fit an `Int`.
    public var checkedElementCount: Int? {
        var count = 1
        for extent in shape {
            let (product, overflow) = count.multipliedReportingOverflow(by: extent)
            guard extent >= 1, !overflow else { return nil }
            count = product
        }
        return count
    }
}

/// Why a list of tensors is no layout.
public enum ParameterLayoutError: Error, Equatable, Sendable, CustomStringConvertible {
    /// A shape has an extent below 1, or its elements and those of the tensors before it do not fit an `Int`.
    case badShape(tensor: String)
    /// Two tensors have one name.
    case nameComesTwice(tensor: String)

    /// One sentence for people.
    public var description: String {
        switch self {
        case .badShape(let tensor): "tensor '\(tensor)' has an extent below 1 or too many elements"
        case .nameComesTwice(let tensor): "the name '\(tensor)' comes twice"
        }
    }
}

/// The names, shapes and order of a model's tensors: how a flat vector of parameters is divided.
///
/// Tensors are kept sorted by name (UTF-8 byte order), so two layouts with the same tensors are equal however they were
/// made, and a vector over them has one meaning.
public struct ParameterLayout: Hashable, Sendable, Codable {
    /// The tensors in order of their names.
    public let tensors: [TensorSpecification]
    /// Where each tensor begins in the flat vector; `offsets[tensors.count]` is the total.
    public let offsets: [Int]

    /// Sorts the tensors by name and places them one after another.
    ///
    /// Use ``init(checking:)`` for tensors of a peer or a file.
    ///
    /// - Precondition: Names are distinct, and the elements of all tensors together fit an `Int`.
    public init(_ tensors: [TensorSpecification]) {
        self.tensors = tensors.sorted { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }
        var offsets = [0]
        for tensor in self.tensors {
            offsets.append((offsets.last ?? 0) + tensor.elementCount)
        }
        self.offsets = offsets
    }

    /// A layout of tensors whose names and shapes come from a peer or a file.
    ///
    /// - Throws: ``ParameterLayoutError`` naming the first wrong tensor.
    public init(checking tensors: [TensorSpecification]) throws(ParameterLayoutError) {
        var (names, total) = (Set<String>(), 0)
        for tensor in tensors {
            guard names.insert(tensor.name).inserted else { throw .nameComesTwice(tensor: tensor.name) }
            guard let count = tensor.checkedElementCount else { throw .badShape(tensor: tensor.name) }
            let (sum, overflow) = total.addingReportingOverflow(count)
            guard !overflow else { throw .badShape(tensor: tensor.name) }
            total = sum
        }
        self.init(tensors)
    }

    /// The number of values in a vector with this layout.
    public var parameterCount: Int { offsets[offsets.count - 1] }

    /// The range of a tensor in the flat vector, or `nil` if the layout has no such tensor.
    public func range(of name: String) -> Range<Int>? {
        guard let index = tensors.firstIndex(where: { $0.name == name }) else { return nil }
        return offsets[index]..<offsets[index + 1]
    }

    /// Decodes the list of tensors; throws a `DecodingError` if it is no layout.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        do {
            try self.init(checking: container.decode([TensorSpecification].self))
        } catch let error as ParameterLayoutError {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: error.description)
        }
    }

    /// Encodes the list of tensors.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(tensors)
    }
}
