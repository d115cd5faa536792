import CKernels

/// How an update's values are written for the wire: the run chooses, the device encodes, the server decodes.
///
/// The errors below are `E‖Q(v) − v‖² / ‖v‖²`. Every encoding but ``topk`` is unbiased up to the rounding of a float: `E[Q(v)] = v`.
public enum UpdateEncoding: String, CaseIterable, Sendable, Codable {
    /// IEEE 754 binary32: exact.
    case f32
    /// IEEE 754 binary16, rounded stochastically: 2 bytes a value, relative error below 2⁻²¹.
    case f16
    /// bfloat16, rounded stochastically: 2 bytes a value, relative error below 2⁻¹⁵.
    case bf16
    /// 8-bit integers with one scale per block of 128, rounded stochastically.
    case int8
    /// 4-bit integers with one scale per block of 32, rounded stochastically.
    case int4
    /// The largest hundredth of each tensor's values; the rest stays on the device and is added to the next update (error
    /// feedback). Biased in one round. Source: Stich et al. 2018, arXiv:1809.07599.
    case topk
    /// Signs after a random rotation with an unbiased scale: about 1 bit a value, error π/2 − 1 = 0.571.
    ///
    /// Source: DRIVE, Vargaftik et al. 2021, arXiv:2105.08339, Theorem 4 (unbiased scale).
    case rotated1
    /// 2 bits a value after a random rotation, error 0.133. Source: EDEN, Vargaftik et al. 2022, arXiv:2108.08842.
    case rotated2
    /// 4 bits a value after a random rotation, error 0.0096. Source as for ``rotated2``.
    case rotated4

    /// Whether every update of a layout has the same length, whatever its values.
    ///
    /// A private run needs that.
    ///
    /// The switch has no `default`, so that a new encoding must answer.
    public var hasFixedLength: Bool {
        switch self {
        case .f32, .f16, .bf16, .int8, .int4, .topk, .rotated1, .rotated2, .rotated4: true
        }
    }

    /// Whether rounding or rotation is random.
    public var isStochastic: Bool { self != .f32 && self != .topk }

    /// Bits of one value after a rotation; `nil` for the other encodings.
    var rotatedBits: Int? {
        switch self {
        case .rotated1: 1
        case .rotated2: 2
        case .rotated4: 4
        default: nil
        }
    }

    /// The values of an `int8` block.
    static let int8Block = Int(MARTLET_I8_BLOCK)
    /// The values of an `int4` block; even, so that no byte belongs to two blocks.
    static let int4Block = Int(MARTLET_I4_BLOCK)
    /// The largest block of a rotation; a tensor's last block is the next power of two of what is left.
    static let rotationBlock = 4096
    /// How many of 1,000 values ``topk`` keeps.
    static let topKPermille = 10

    /// How many values of a tensor ``topk`` keeps: a hundredth, at least one.
    static func keptCount(of count: Int) -> Int { max(1, (count * topKPermille + 999) / 1000) }

    /// The most bytes that an update of this layout needs for its values, without header and metadata.
    public func byteLimit(parameterCount: Int, tensorCount: Int) -> Int {
        switch self {
        case .f32: parameterCount * 4
        case .f16, .bf16: parameterCount * 2
        case .int8: parameterCount + (parameterCount / Self.int8Block + tensorCount) * 4
        case .int4: parameterCount / 2 + tensorCount + (parameterCount / Self.int4Block + tensorCount) * 4
        case .topk: (parameterCount * Self.topKPermille / 1000 + 2 * tensorCount) * 8
        case .rotated1, .rotated2, .rotated4:
            parameterCount * 2 * (rotatedBits ?? 1) / 8 + (parameterCount / Self.rotationBlock + tensorCount) * 6
        }
    }
}

/// Why a file is not the update that was asked for.
public struct UpdateFormatError: Error, Equatable, Sendable, CustomStringConvertible {
    /// A code of the API: `tensor_mismatch`, `encoding_mismatch`, `metadata_invalid`, `indices_invalid`, `scale_invalid`, `not_finite` or
    /// `value_out_of_range` here; admission adds its own.
    public var code: String
    /// What is wrong, and in which tensor.
    public var description: String
    /// The position in the flat vector of the value that the error is about; `nil` if it is about no single value.
    package var index: Int?

    /// The code of a value that is larger than the run allows.
    package static let valueOutOfRange = "value_out_of_range"
    /// The code of a value that is NaN or infinite.
    package static let notFinite = "not_finite"

    package init(_ code: String, _ description: String, index: Int? = nil) {
        self.code = code
        self.description = description
        self.index = index
    }
}
