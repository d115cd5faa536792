/// Why a safetensors file was refused.
public enum SafetensorsError: Error, Equatable, Sendable {
    /// The file ends before its header or its data do.
    case truncated(expectedByteCount: Int, actualByteCount: Int)
    /// The header is longer than the limit.
    case headerTooLarge(byteCount: UInt64, limit: Int)
    /// The header is not the JSON that the format requires.
    case malformedHeader(reason: String)
    /// The tensor has a dtype that is not supported.
    case unsupportedDataType(tensor: String, dataType: String)
    /// The tensors' data ranges overlap, leave a gap or do not match shape and dtype.
    case badOffsets(tensor: String)
    /// Bytes follow the last tensor.
    case trailingBytes(count: Int)
    /// The file could not be read or written.
    case inputOutput(path: String, errno: Int32)
    /// The file's tensors differ from the expected layout.
    case layoutMismatch(tensor: String, reason: String)
}

extension SafetensorsError: CustomStringConvertible {
    /// One sentence for people.
    public var description: String {
        switch self {
        case .truncated(let expected, let actual): "the file needs \(expected) bytes but has \(actual)"
        case .headerTooLarge(let count, _) where count > 1 << 40:
            "this is no safetensors file: its first eight bytes are no header's length"
        case .headerTooLarge(let count, let limit): "the header says \(count) bytes, over the limit of \(limit)"
        case .malformedHeader(let reason): "the header is malformed: \(reason)"
        case .unsupportedDataType(let tensor, let dataType):
            ModelTensors.refusal(of: tensor, dataType: dataType) ?? "tensor '\(tensor)' has dtype \(dataType)"
        case .badOffsets(let tensor): "tensor '\(tensor)' has data_offsets that do not fit its shape and neighbours"
        case .trailingBytes(let count): "\(count) bytes follow the last tensor"
        case .inputOutput(let path, let code): "cannot read or write \(path) (errno \(code))"
        case .layoutMismatch(let tensor, let reason): "tensor '\(tensor)' \(reason)"
        }
    }
}
