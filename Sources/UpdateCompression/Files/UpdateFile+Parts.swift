import Tensors

extension UpdateFile {
    static func plainEncoding(_ header: SafetensorsHeader) -> UpdateEncoding? {
        switch header.entries.first?.dataType {
        case .float16: .f16
        case .bfloat16: .bf16
        case .int8: .int8
        default: .f32
        }
    }

    static func parts(
        of header: SafetensorsHeader,
        layout: ParameterLayout,
        encoding: UpdateEncoding
    ) throws -> [Part] {
        var entries: [String: SafetensorsHeader.Entry] = [:]
        for entry in header.entries { entries[entry.specification.name] = entry }
        func take(_ name: String, _ type: TensorDataType, _ shape: [Int]?) throws -> SafetensorsHeader.Entry {
            guard let entry = entries.removeValue(forKey: name) else {
                throw UpdateFormatError("tensor_mismatch", "tensor '\(name)' is missing")
            }
            if let shape, entry.specification.shape != shape {
                throw UpdateFormatError(
                    "tensor_mismatch",
                    "tensor '\(name)' has shape \(entry.specification.shape), not \(shape)"
                )
            }
            guard entry.dataType == type else {
                throw UpdateFormatError(
                    "tensor_mismatch",
                    "tensor '\(name)' has dtype \(entry.dataType.rawValue), not \(type.rawValue)"
                )
            }
            return entry
        }
        var parts: [Part] = []
        for tensor in layout.tensors {
            let count = tensor.elementCount
            switch encoding {
            case .f32: parts.append(Part(data: try take(tensor.name, .float32, tensor.shape).fileRange, second: 0..<0))
            case .f16: parts.append(Part(data: try take(tensor.name, .float16, tensor.shape).fileRange, second: 0..<0))
            case .bf16:
                parts.append(Part(data: try take(tensor.name, .bfloat16, tensor.shape).fileRange, second: 0..<0))
            case .int8:
                let size = UpdateEncoding.int8Block
                let data = try take(tensor.name, .int8, tensor.shape)
                let scales = try take(tensor.name + ".scale", .float32, [(count + size - 1) / size])
                parts.append(Part(data: data.fileRange, second: scales.fileRange))
            case .int4:
                let size = UpdateEncoding.int4Block
                let data = try take(tensor.name + ".packed", .uint8, [(count + 1) / 2])
                let scales = try take(tensor.name + ".scale", .float32, [(count + size - 1) / size])
                parts.append(Part(data: data.fileRange, second: scales.fileRange))
            case .topk:
                let indices = try take(tensor.name + ".indices", .uint32, nil)
                guard indices.specification.shape.count == 1, indices.specification.elementCount <= count else {
                    throw UpdateFormatError(
                        "tensor_mismatch",
                        "tensor '\(tensor.name).indices' must have one dimension and at most \(count) entries"
                    )
                }
                let values = try take(tensor.name + ".values", .float32, indices.specification.shape)
                parts.append(Part(data: indices.fileRange, second: values.fileRange))
            case .rotated1, .rotated2, .rotated4:
                let sizes = RandomRotation.blockSizes(of: count)
                let bits = encoding.rotatedBits ?? 1
                let data = try take(tensor.name + ".rotated", .uint8, [sizes.reduce(0, +) * bits / 8])
                let scales = try take(tensor.name + ".scale", .float32, [sizes.count])
                parts.append(Part(data: data.fileRange, second: scales.fileRange, blockSizes: sizes))
            }
        }
        if let extra = entries.keys.min() {
            throw UpdateFormatError("tensor_mismatch", "tensor '\(extra)' is not one of the model's")
        }
        return parts
    }

    /// The offset of the first value if the values of all tensors follow each other in the layout's order, as in files of our own writer;
    /// else `nil`.
    static func flatStart(_ parts: [Part], encoding: UpdateEncoding) -> Int? {
        guard encoding == .f32 || encoding == .f16 || encoding == .bf16,
            let first = parts.first(where: { !$0.data.isEmpty })
        else { return nil }
        var end = first.data.lowerBound
        for part in parts where !part.data.isEmpty {
            guard part.data.lowerBound == end else { return nil }
            end = part.data.upperBound
        }
        return first.data.lowerBound
    }
}
