import CKernels
import Foundation
public import Tensors

#if canImport(Glibc)
import Glibc
#endif

/// An open update, in whatever encoding it was written, whose values are read or summed range by range.
///
/// Memory is one block, whatever the size of the file. Reading positions are given with each call: any number of threads
/// may use one file at the same time.
public final class UpdateFile: Sendable {
    /// The layout of the decoded values.
    public let layout: ParameterLayout
    /// How the file was written.
    public let encoding: UpdateEncoding
    /// The strings beside the tensors.
    public let metadata: [String: String]
    private let parts: [Part]
    private let descriptor: Int32
    private let path: String
    private let rotationSeed: UInt64

    /// Where one tensor's bytes lie: values and scales, or indices and values.
    private struct Part: Sendable {
        var data: Range<Int>
        var second: Range<Int>
        var blockSizes: [Int] = []
    }

    /// Opens a file and checks names, shapes and types.
    ///
    /// - Parameters:
    ///   - path: A safetensors file.
    ///   - layout: The tensors that the values are for.
    /// - Throws: ``UpdateFormatError``, or `SafetensorsError` for a file that is no safetensors file.
    public init(path: String, layout: ParameterLayout) throws {
        let header = try SafetensorsFile(path: path).header
        let name = header.metadata["encoding"]
        let found = name.map { UpdateEncoding(rawValue: $0) } ?? Self.plainEncoding(header)
        guard let encoding = found else {
            throw UpdateFormatError("encoding_mismatch", "the encoding '\((name ?? "").prefix(40))' is not known")
        }
        let seed = UInt64(header.metadata["rotation_seed"] ?? "")
        guard encoding.rotatedBits == nil || seed != nil else {
            throw UpdateFormatError("metadata_invalid", "rotation_seed must be a 64-bit number as a string")
        }
        parts = try Self.parts(of: header, layout: layout, encoding: encoding)
        rotationSeed = seed ?? 0
        self.layout = layout
        self.encoding = encoding
        self.path = path
        metadata = header.metadata
        descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw SafetensorsError.inputOutput(path: path, errno: errno) }
    }

    deinit { close(descriptor) }

    // MARK: - Reading

    /// Decodes values in the order of the layout.
    ///
    /// - Parameters:
    ///   - range: Positions in the flat vector.
    ///   - values: Receives `range.count` floats from its first element on.
    /// - Throws: `SafetensorsError` where the file cannot be read.
    public func read(_ range: Range<Int>, into values: inout [Float]) throws {
        precondition(values.count >= range.count, "buffer too small")
        let scratch = Scratch()
        try values.withUnsafeMutableBufferPointer { buffer in
            guard let base = buffer.baseAddress else { return }
            try read(range, into: base, scratch)
        }
    }

    /// The same into memory of the caller's.
    package func read(_ range: Range<Int>, into values: UnsafeMutablePointer<Float>, _ scratch: Scratch) throws {
        precondition(range.lowerBound >= 0 && range.upperBound <= layout.parameterCount, "range outside the update")
        try forEachTensor(range) { index, local, start in
            try decode(index, local, into: values + start, scratch)
        }
    }

    /// Adds `round(value · scale) · weight` to integer sums, decoding on the way.
    ///
    /// - Parameters:
    ///   - range: Positions in the flat vector.
    ///   - sums: `range.count` sums.
    ///   - scale: A power of two; grid units of a value of 1.
    ///   - weight: 1 or more.
    ///   - bound: Largest absolute value.
    ///   - scratch: Buffers of the calling thread.
    /// - Returns: Whether every value was finite and within the bound; else the sums are of no use.
    /// - Throws: `SafetensorsError` where the file cannot be read.
    package func fold(
        _ range: Range<Int>,
        into sums: UnsafeMutablePointer<Int64>,
        scale: Double,
        weight: Int64,
        bound: Double,
        _ scratch: Scratch
    ) throws -> Bool {
        var bad: Int32 = 0
        try forEachTensor(range) { index, local, start in
            let part = parts[index]
            let target = sums + start
            switch encoding {
            case .f32:
                let raw = try bytes(part.data, local.lowerBound * 4, local.count * 4, scratch)
                let floats = raw.bindMemory(to: Float.self, capacity: local.count)
                bad |= martlet_fold_f32(target, floats, local.count, scale, weight, bound)
            case .f16, .bf16:
                let raw = try bytes(part.data, local.lowerBound * 2, local.count * 2, scratch)
                let halves = raw.bindMemory(to: UInt16.self, capacity: local.count)
                bad |=
                    encoding == .f16
                    ? martlet_fold_f16(target, halves, local.count, scale, weight, bound)
                    : martlet_fold_bf16(target, halves, local.count, scale, weight, bound)
            case .int8:
                let scales = try self.scales(part, local, UpdateEncoding.int8Block)
                let raw = try bytes(part.data, local.lowerBound, local.count, scratch)
                let integers = raw.bindMemory(to: Int8.self, capacity: local.count)
                forEachBlock(local, UpdateEncoding.int8Block) { block, offset, count in
                    bad |= martlet_fold_i8(
                        target + offset,
                        integers + offset,
                        count,
                        scales[block],
                        scale,
                        weight,
                        bound
                    )
                }
            case .topk:
                try forEachKept(part, local, scratch) { position, value in
                    guard abs(Double(value)) <= bound else {
                        bad = 1
                        return
                    }
                    target[position] += Int64((Double(value) * scale).rounded(.toNearestOrEven)) * weight
                }
            case .int4, .rotated1, .rotated2, .rotated4:
                let floats = scratch.floats(local.count)
                try decode(index, local, into: floats, scratch)
                bad |= martlet_fold_f32(target, floats, local.count, scale, weight, bound)
            }
        }
        return bad == 0
    }

    /// Checks everything that can be wrong with the values, in one pass.
    ///
    /// - Returns: The squared L2 norm of the decoded values.
    /// - Throws: ``UpdateFormatError`` with code `not_finite`, `value_out_of_range`, `indices_invalid` or `scale_invalid`.
    package func check(bound: Double, blockElementCount: Int = 1 << 16) throws -> Double {
        try checkScales()
        let scratch = Scratch()
        let values = UnsafeMutablePointer<Float>.allocate(capacity: min(blockElementCount, layout.parameterCount))
        defer { values.deallocate() }
        var squares = 0.0
        if encoding == .topk { try checkIndices(scratch) }
        var start = 0
        while start < layout.parameterCount {
            let range = start..<min(layout.parameterCount, start + blockElementCount)
            try read(range, into: values, scratch)
            guard martlet_check_f32(values, range.count, bound, &squares) == 0 else {
                try reportBadValue(UnsafeBufferPointer(start: values, count: range.count), range, bound)
                return squares
            }
            start = range.upperBound
        }
        return squares
    }

    private func reportBadValue(_ values: UnsafeBufferPointer<Float>, _ range: Range<Int>, _ bound: Double) throws {
        guard let index = values.firstIndex(where: { !(Double(abs($0)) <= bound) }) else { return }
        let tensor = layout.tensors.indices.last { layout.offsets[$0] <= range.lowerBound + index } ?? 0
        let place =
            "tensor '\(layout.tensors[tensor].name)', element \(range.lowerBound + index - layout.offsets[tensor])"
        guard values[index].isFinite else {
            throw UpdateFormatError("not_finite", "the update holds a NaN or an infinity: \(place)")
        }
        throw UpdateFormatError(
            "value_out_of_range",
            "a value of the update is beyond the run's value_bound of \(bound): \(place)"
        )
    }

    private func checkScales() throws {
        let isRotated = encoding.rotatedBits != nil
        guard encoding == .int8 || encoding == .int4 || isRotated else { return }
        for (index, part) in parts.enumerated() {
            let scales = try floats(part.second, 0, part.second.count / 4)
            // A block of zeros after a rotation has scale 0; with integers it has a scale and integers of 0.
            guard scales.allSatisfy({ $0.isFinite && ($0 > 0 || (isRotated && $0 == 0)) }) else {
                throw UpdateFormatError(
                    "scale_invalid",
                    "tensor '\(layout.tensors[index].name)' has a scale that is zero, negative or not finite"
                )
            }
        }
    }

    private func checkIndices(_ scratch: Scratch) throws {
        for (index, part) in parts.enumerated() {
            var last = -1
            var done = 0
            let count = part.data.count / 4
            while done < count {
                let take = min(1 << 15, count - done)
                let raw = try bytes(part.data, done * 4, take * 4, scratch)
                let indices = raw.bindMemory(to: UInt32.self, capacity: take)
                for position in 0..<take {
                    let value = Int(indices[position])
                    guard value > last, value < layout.tensors[index].elementCount else {
                        throw UpdateFormatError(
                            "indices_invalid",
                            "tensor '\(layout.tensors[index].name)' has indices that are not ascending or out of range"
                        )
                    }
                    last = value
                }
                done += take
            }
        }
    }

    // MARK: - One tensor

    private func decode(
        _ index: Int,
        _ local: Range<Int>,
        into values: UnsafeMutablePointer<Float>,
        _ scratch: Scratch
    )
        throws
    {
        let part = parts[index]
        switch encoding {
        case .f32:
            try read(
                part.data,
                local.lowerBound * 4,
                UnsafeMutableRawBufferPointer(start: values, count: local.count * 4)
            )
        case .f16, .bf16:
            let raw = try bytes(part.data, local.lowerBound * 2, local.count * 2, scratch)
            let halves = raw.bindMemory(to: UInt16.self, capacity: local.count)
            if encoding == .f16 {
                martlet_decode_f16(values, halves, local.count)
            } else {
                martlet_decode_bf16(values, halves, local.count)
            }
        case .int8:
            let scales = try scales(part, local, UpdateEncoding.int8Block)
            let raw = try bytes(part.data, local.lowerBound, local.count, scratch)
            let integers = raw.bindMemory(to: Int8.self, capacity: local.count)
            forEachBlock(local, UpdateEncoding.int8Block) { block, offset, count in
                martlet_decode_i8(values + offset, integers + offset, count, scales[block])
            }
        case .int4:
            let scales = try scales(part, local, UpdateEncoding.int4Block)
            let first = local.lowerBound / 2
            let packed = try bytes(part.data, first, (local.upperBound + 1) / 2 - first, scratch)
                .assumingMemoryBound(to: UInt8.self)
            let firstBlock = local.lowerBound / UpdateEncoding.int4Block
            for position in local {
                let nibble = packed[position / 2 - first] >> UInt8(position % 2 * 4) & 15
                values[position - local.lowerBound] =
                    Float(Int(nibble) - 8) * scales[position / UpdateEncoding.int4Block - firstBlock]
            }
        case .topk:
            values.update(repeating: 0, count: local.count)
            try forEachKept(part, local, scratch) { position, value in values[position] = value }
        case .rotated1, .rotated2, .rotated4: try decodeRotated(index, part, local, into: values, scratch)
        }
    }

    private func decodeRotated(
        _ tensor: Int,
        _ part: Part,
        _ local: Range<Int>,
        into values: UnsafeMutablePointer<Float>,
        _ scratch: Scratch
    ) throws {
        let bits = encoding.rotatedBits ?? 1
        let points = NormalQuantizer.values(bits: bits)
        let mask = UInt8(1 << bits - 1)
        var block = local.lowerBound / UpdateEncoding.rotationBlock
        while block * UpdateEncoding.rotationBlock < local.upperBound {
            let start = block * UpdateEncoding.rotationBlock
            let size = part.blockSizes[block]
            let scale = try floats(part.second, block, 1)[0]
            let rotated = UnsafeMutableBufferPointer(start: scratch.rotation, count: size)
            let packed = try bytes(part.data, start * bits / 8, size * bits / 8, scratch)
                .assumingMemoryBound(to: UInt8.self)
            for index in 0..<size {
                let code = packed[index * bits / 8] >> UInt8(index * bits % 8) & mask
                rotated[index] = points[Int(code)] * scale
            }
            RandomRotation.rotateBack(rotated, seed: RandomRotation.seed(rotationSeed, tensor: tensor, block: block))
            let wanted = local.clamped(to: start..<(start + size))
            for position in wanted { values[position - local.lowerBound] = rotated[position - start] }
            block += 1
        }
    }

    private func forEachKept(
        _ part: Part,
        _ local: Range<Int>,
        _ scratch: Scratch,
        _ body: (Int, Float) -> Void
    ) throws {
        let count = part.data.count / 4
        // Binary search in the file: the indices are not kept in memory.
        func firstIndex(notBelow bound: Int) throws -> Int {
            var (low, high) = (0, count)
            while low < high {
                let middle = (low + high) / 2
                var index: UInt32 = 0
                try withUnsafeMutableBytes(of: &index) { try read(part.data, middle * 4, $0) }
                if Int(index) < bound { low = middle + 1 } else { high = middle }
            }
            return low
        }
        let first = try firstIndex(notBelow: local.lowerBound)
        let end = try firstIndex(notBelow: local.upperBound)
        guard end > first else { return }
        let values = try floats(part.second, first, end - first)
        let raw = try bytes(part.data, first * 4, (end - first) * 4, scratch)
        let indices = raw.bindMemory(to: UInt32.self, capacity: end - first)
        for position in 0..<(end - first) where local.contains(Int(indices[position])) {
            body(Int(indices[position]) - local.lowerBound, values[position])
        }
    }

    private func forEachTensor(_ range: Range<Int>, _ body: (Int, Range<Int>, Int) throws -> Void) rethrows {
        // The first tensor that reaches into the range, by bisection: models have many small tensors.
        var (low, high) = (0, layout.tensors.count)
        while low < high {
            let middle = (low + high) / 2
            if layout.offsets[middle + 1] <= range.lowerBound { low = middle + 1 } else { high = middle }
        }
        while low < layout.tensors.count, layout.offsets[low] < range.upperBound {
            let offset = layout.offsets[low]
            let overlap = range.clamped(to: offset..<layout.offsets[low + 1])
            try body(
                low,
                (overlap.lowerBound - offset)..<(overlap.upperBound - offset),
                overlap.lowerBound - range.lowerBound
            )
            low += 1
        }
    }

    /// Calls with each block's number in `scales(_:_:_:)`, where it begins in the range and its length there.
    private func forEachBlock(_ local: Range<Int>, _ size: Int, _ body: (Int, Int, Int) -> Void) {
        var position = local.lowerBound
        let first = position / size
        while position < local.upperBound {
            let end = min(local.upperBound, (position / size + 1) * size)
            body(position / size - first, position - local.lowerBound, end - position)
            position = end
        }
    }

    private func scales(_ part: Part, _ local: Range<Int>, _ size: Int) throws -> [Float] {
        let first = local.lowerBound / size
        return try floats(part.second, first, (local.upperBound + size - 1) / size - first)
    }

    // MARK: - Bytes

    private func floats(_ range: Range<Int>, _ first: Int, _ count: Int) throws -> [Float] {
        var values = [Float](repeating: 0, count: count)
        try values.withUnsafeMutableBytes { try read(range, first * 4, $0) }
        return values
    }

    private func bytes(
        _ range: Range<Int>,
        _ offset: Int,
        _ count: Int,
        _ scratch: Scratch
    ) throws
        -> UnsafeMutableRawPointer
    {
        let space = scratch.bytes(count)
        try read(range, offset, UnsafeMutableRawBufferPointer(start: space, count: count))
        return space
    }

    private func read(_ range: Range<Int>, _ offset: Int, _ space: UnsafeMutableRawBufferPointer) throws {
        precondition(offset >= 0 && offset + space.count <= range.count, "bytes outside the tensor")
        var done = 0
        while done < space.count {
            let position = off_t(range.lowerBound + offset + done)
            let count = pread(descriptor, space.baseAddress.map { $0 + done }, space.count - done, position)
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else {
                if count < 0 { throw SafetensorsError.inputOutput(path: path, errno: errno) }
                throw SafetensorsError.truncated(expectedByteCount: range.upperBound, actualByteCount: Int(position))
            }
            done += count
        }
    }

    /// Memory of one thread that reads updates; grows to the largest block and stays.
    package final class Scratch {
        private var raw = UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 64)
        private var rawCount = 64
        private var decoded: UnsafeMutablePointer<Float>?
        private var decodedCount = 0
        let rotation = UnsafeMutablePointer<Float>.allocate(capacity: UpdateEncoding.rotationBlock)

        package init() {}

        deinit {
            raw.deallocate()
            decoded?.deallocate()
            rotation.deallocate()
        }

        func bytes(_ count: Int) -> UnsafeMutableRawPointer {
            if count > rawCount {
                raw.deallocate()
                raw = .allocate(byteCount: count, alignment: 64)
                rawCount = count
            }
            return raw
        }

        func floats(_ count: Int) -> UnsafeMutablePointer<Float> {
            if count > decodedCount || decoded == nil {
                decoded?.deallocate()
                decoded = .allocate(capacity: max(1, count))
                decodedCount = count
            }
            guard let decoded else { preconditionFailure("no memory for a block") }
            return decoded
        }
    }
}

// MARK: - Headers

extension UpdateFile {
    private static func plainEncoding(_ header: SafetensorsHeader) -> UpdateEncoding? {
        switch header.entries.first?.dataType {
        case .float16: .f16
        case .bfloat16: .bf16
        case .int8: .int8
        default: .f32
        }
    }

    private static func parts(
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
}
