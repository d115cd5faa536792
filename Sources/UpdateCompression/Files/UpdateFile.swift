import CKernels
import CLibrary
import Foundation
public import Tensors

/// An open update in any encoding, whose values are read or summed range by range.
///
/// Memory is one block, whatever the size of the file. Every call says what to read (`pread`), so any number of threads may use one
/// file at the same time.
public final class UpdateFile: Sendable {
    /// The layout of the decoded values.
    public let layout: ParameterLayout
    /// The encoding of the values.
    public let encoding: UpdateEncoding
    /// The strings beside the tensors.
    public let metadata: [String: String]
    let parts: [Part]
    /// The offset of the first value if the values of all tensors follow each other in the layout's order; else `nil`.
    let flatStart: Int?
    /// Negative if the file is opened again for each read.
    private let descriptor: Int32
    private let path: String
    /// The flags of `open`.
    private let flags: Int32
    private let rotationSeed: UInt64

    /// Where the bytes of one tensor are: values and scales, or indices and values.
    struct Part: Sendable {
        var data: Range<Int>
        var second: Range<Int>
        var blockSizes: [Int] = []
    }

    /// Opens a file and checks names, shapes and dtypes, and no values: `check` does that.
    ///
    /// - Parameters:
    ///   - path: A safetensors file.
    ///   - layout: The model's layout.
    ///   - keepsOpen: Whether the file stays open. Without it every read opens the file, for callers with very many files.
    ///   - followsLinks: Whether the path may be a symbolic link.
    /// - Throws: ``UpdateFormatError``, or `SafetensorsError` for a file that is no safetensors file.
    public init(path: String, layout: ParameterLayout, keepsOpen: Bool = true, followsLinks: Bool = true) throws {
        let header = try SafetensorsFile(path: path, followsLinks: followsLinks).header
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
        flatStart = Self.flatStart(parts, encoding: encoding)
        rotationSeed = seed ?? 0
        self.layout = layout
        self.encoding = encoding
        self.path = path
        flags = O_RDONLY | O_CLOEXEC | (followsLinks ? 0 : O_NOFOLLOW)
        metadata = header.metadata
        descriptor = keepsOpen ? open(path, flags) : -1
        guard descriptor >= 0 || !keepsOpen else { throw SafetensorsError.inputOutput(path: path, errno: errno) }
    }

    deinit { if descriptor >= 0 { close(descriptor) } }

    // MARK: - Reading

    /// Decodes values in the order of the layout.
    ///
    /// - Parameters:
    ///   - range: Positions in the flat vector.
    ///   - values: Receives `range.count` floats from its first element on.
    /// - Throws: `SafetensorsError` if the file cannot be read.
    public func read(_ range: Range<Int>, into values: inout [Float]) throws {
        precondition(values.count >= range.count, "buffer too small")
        let scratch = UpdateScratch()
        try values.withUnsafeMutableBufferPointer { buffer in
            guard let base = buffer.baseAddress else { return }
            try read(range, into: base, scratch)
        }
    }

    /// Decodes values into the caller's memory.
    package func read(_ range: Range<Int>, into values: UnsafeMutablePointer<Float>, _ scratch: UpdateScratch) throws {
        precondition(range.lowerBound >= 0 && range.upperBound <= layout.parameterCount, "range outside the update")
        try Self.forEachPiece(range, of: [self]) { piece, start in
            try decode(piece, into: values + start, scratch)
        }
    }

    /// Checks scales, indices and values in one pass, before anything else reads a peer's file.
    ///
    /// - Parameters:
    ///   - bound: The largest absolute value, in parameter units.
    ///   - blockElementCount: How many values are decoded at a time.
    /// - Returns: The squared L2 norm of the decoded values, in parameter units squared.
    /// - Throws: ``UpdateFormatError`` with code `not_finite`, `value_out_of_range`, `indices_invalid` or `scale_invalid`.
    package func check(bound: Double, blockElementCount: Int = 1 << 16) throws -> Double {
        let scratch = UpdateScratch()
        try checkScales(scratch)
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
        let position = range.lowerBound + index
        let tensor = layout.tensors.indices.last { layout.offsets[$0] <= position } ?? 0
        let place = "tensor '\(layout.tensors[tensor].name)', element \(position - layout.offsets[tensor])"
        guard values[index].isFinite else {
            throw UpdateFormatError(
                UpdateFormatError.notFinite,
                "the update holds a NaN or an infinity: \(place)",
                index: position
            )
        }
        throw UpdateFormatError(
            UpdateFormatError.valueOutOfRange,
            "a value of the update is beyond the run's value_bound of \(bound): \(place)",
            index: position
        )
    }

    private func checkScales(_ scratch: UpdateScratch) throws {
        let isRotated = encoding.rotatedBits != nil
        guard encoding == .int8 || encoding == .int4 || isRotated else { return }
        for (index, part) in parts.enumerated() {
            let count = part.second.count / 4
            for start in stride(from: 0, to: count, by: 1 << 15) {
                let take = min(1 << 15, count - start)
                let raw = try bytes(part.second, start * 4, take * 4, 0, scratch)
                let scales = UnsafeBufferPointer(start: raw.bindMemory(to: Float.self, capacity: take), count: take)
                // A block of zeros has scale 0 after a rotation; with integers it has a positive scale and integers of 0.
                guard scales.allSatisfy({ $0.isFinite && ($0 > 0 || (isRotated && $0 == 0)) }) else {
                    throw UpdateFormatError(
                        "scale_invalid",
                        "tensor '\(layout.tensors[index].name)' has a scale that is zero, negative or not finite"
                    )
                }
            }
        }
    }

    private func checkIndices(_ scratch: UpdateScratch) throws {
        for (index, part) in parts.enumerated() {
            var last = -1
            var done = 0
            let count = part.data.count / 4
            while done < count {
                let take = min(1 << 15, count - done)
                let raw = try bytes(part.data, done * 4, take * 4, 0, scratch)
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

    private func decode(_ piece: Piece, into values: UnsafeMutablePointer<Float>, _ scratch: UpdateScratch) throws {
        if encoding == .f32 {
            let (data, offset) =
                piece.tensor.map { (parts[$0].data, 4 * piece.local.lowerBound) }
                ?? ((flatStart ?? 0)..<Int.max, 4 * piece.local.lowerBound)
            return try read(data, offset, .init(start: values, count: 4 * piece.count))
        }
        if let tensor = piece.tensor, encoding.rotatedBits != nil {
            return try decodeRotated(tensor, piece.local, into: values, 0, scratch)
        }
        if var row = try row(piece, weight: 1, slot: 0, scratch) {
            martlet_decode(values, &row, piece.count)
        } else if let tensor = piece.tensor {
            values.update(repeating: 0, count: piece.count)
            try forEachKept(parts[tensor], piece.local, scratch) { position, value in values[position] = value }
        }
    }

    func decodeRotated(
        _ tensor: Int,
        _ local: Range<Int>,
        into values: UnsafeMutablePointer<Float>,
        _ slot: Int,
        _ scratch: UpdateScratch
    ) throws {
        let part = parts[tensor]
        let bits = encoding.rotatedBits ?? 1
        let points = NormalQuantizer.values(bits: bits)
        let mask = UInt8(1 << bits - 1)
        var block = local.lowerBound / UpdateEncoding.rotationBlock
        while block * UpdateEncoding.rotationBlock < local.upperBound {
            let start = block * UpdateEncoding.rotationBlock
            let size = part.blockSizes[block]
            let scale = try floats(part.second, block, 1)[0]
            let rotated = UnsafeMutableBufferPointer(start: scratch.rotation, count: size)
            let packed = try bytes(part.data, start * bits / 8, size * bits / 8, slot, scratch)
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

    func forEachKept(
        _ part: Part,
        _ local: Range<Int>,
        _ scratch: UpdateScratch,
        _ body: (Int, Float) -> Void
    ) throws {
        let count = part.data.count / 4
        // A binary search in the file, so that the indices need no memory.
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
        let raw = try bytes(part.data, first * 4, (end - first) * 4, 0, scratch)
        let indices = raw.bindMemory(to: UInt32.self, capacity: end - first)
        for position in 0..<(end - first) where local.contains(Int(indices[position])) {
            body(Int(indices[position]) - local.lowerBound, values[position])
        }
    }

    func forEachTensor(_ range: Range<Int>, _ body: (Int, Range<Int>, Int) throws -> Void) rethrows {
        // Bisection finds the first tensor that reaches into the range: models have many small tensors.
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
        _ slot: Int,
        _ scratch: UpdateScratch
    ) throws -> UnsafeMutableRawPointer {
        let space = scratch.values(slot, byteCount: count)
        try read(range, offset, UnsafeMutableRawBufferPointer(start: space, count: count))
        return space
    }

    func read(_ range: Range<Int>, _ offset: Int, _ space: UnsafeMutableRawBufferPointer) throws {
        precondition(offset >= 0 && offset + space.count <= range.count, "bytes outside the tensor")
        let descriptor = self.descriptor >= 0 ? self.descriptor : open(path, flags)
        guard descriptor >= 0 else { throw SafetensorsError.inputOutput(path: path, errno: errno) }
        defer { if self.descriptor < 0 { close(descriptor) } }
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
}
