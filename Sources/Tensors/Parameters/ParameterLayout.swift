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

    /// Sorts the tensors by name and lays them one after another.
    public init(_ tensors: [TensorSpecification]) {
        self.tensors = tensors.sorted { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }
        var offsets = [0]
        for tensor in self.tensors {
            offsets.append((offsets.last ?? 0) + tensor.elementCount)
        }
        self.offsets = offsets
    }

    /// The number of values in a vector with this layout.
    public var parameterCount: Int { offsets[offsets.count - 1] }

    /// The range of a tensor in the flat vector, or `nil` where the layout has no such tensor.
    public func range(of name: String) -> Range<Int>? {
        guard let index = tensors.firstIndex(where: { $0.name == name }) else { return nil }
        return offsets[index]..<offsets[index + 1]
    }

    /// Decodes the list of tensors.
    public init(from decoder: any Decoder) throws {
        self.init(try decoder.singleValueContainer().decode([TensorSpecification].self))
    }

    /// Encodes the list of tensors.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(tensors)
    }
}
