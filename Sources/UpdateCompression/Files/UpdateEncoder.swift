import CKernels
import CLibrary
public import Foundation
public import Tensors

/// Writes an update in the encoding that the run asks for, block by block: memory is a few blocks beside the update.
///
/// Encoding is post-processing: after the noise of mode `local` it costs no privacy, and in mode `central` the server clips again
/// what it decodes. No decoded value is beyond the run's value bound unless the update's own is.
public struct UpdateEncoder {
    /// The run's encoding.
    public var encoding: UpdateEncoding
    /// Strings for the file's metadata; `encoding` and `rotation_seed` are added.
    public var metadata: [String: String]
    /// The seed of rounding and rotation: a fresh random number for each update, so that nobody can choose values by it.
    public var seed: UInt64
    /// The largest absolute value that the server admits, in parameter units.
    public var valueBound: Float
    /// Whether spaces in the header make the file's length independent of the digits of `num_examples`, `num_tokens` and the seed.
    ///
    /// For private runs, in which a length would tell something about a client's data.
    public var hasFixedLength: Bool

    /// Values that are encoded at a time; a multiple of every encoding's block.
    static let blockElementCount = 1 << 15
    /// As many digits as the largest count of examples that is admitted.
    private static let longestCount = "1000000000000"
    private static let flushByteCount = 16 << 20

    /// Describes a file.
    public init(
        _ encoding: UpdateEncoding,
        metadata: [String: String] = [:],
        seed: UInt64,
        valueBound: Float = .greatestFiniteMagnitude,
        hasFixedLength: Bool = false
    ) {
        self.hasFixedLength = hasFixedLength
        self.encoding = encoding
        self.metadata = metadata
        self.seed = seed
        self.valueBound = valueBound
    }

    /// Writes a file and syncs it to the disk.
    ///
    /// - Parameters:
    ///   - update: Every value finite.
    ///   - path: An existing file is overwritten; a symbolic link is refused.
    ///   - residual: For ``UpdateEncoding/topk``: what earlier updates left out, shape `[parameterCount]`; on return what this one
    ///     leaves out. Other encodings do not use it.
    ///   - observe: Sees the bytes of the file and their offsets, in the order in which they are written.
    /// - Throws: `SafetensorsError.inputOutput(path:errno:)`.
    public func write(
        _ update: ParameterVector,
        to path: String,
        residual: inout [Float],
        observe: (_ bytes: UnsafeRawBufferPointer, _ offset: Int) -> Void = { _, _ in }
    ) throws(SafetensorsError) {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw .inputOutput(path: path, errno: errno) }
        defer { close(descriptor) }
        let file = plan(update.layout)
        var flushed = 0
        try run(update, file, residual: &residual) { (bytes, offset) throws(SafetensorsError) in
            observe(bytes, offset)
            var done = 0
            while done < bytes.count {
                let start = bytes.baseAddress.map { $0 + done }
                let written = pwrite(descriptor, start, bytes.count - done, off_t(offset + done))
                if written < 0 && errno == EINTR { continue }
                guard written > 0 else { throw .inputOutput(path: path, errno: errno) }
                done += written
            }
            // The disk works while more is encoded.
            if offset + bytes.count - flushed >= Self.flushByteCount {
                martlet_start_flush(descriptor, Int64(flushed), Int64(offset + bytes.count - flushed))
                flushed = offset + bytes.count
            }
        }
        guard fdatasync(descriptor) == 0 else { throw .inputOutput(path: path, errno: errno) }
    }

    /// The length in bytes of a file for this layout.
    public func byteCount(of layout: ParameterLayout) -> Int { plan(layout).byteCount }

    /// The file in memory.
    ///
    /// - Parameters:
    ///   - update: Every value finite.
    ///   - residual: As for ``write(_:to:residual:observe:)``.
    /// - Returns: A safetensors file.
    public func encode(_ update: ParameterVector, residual: inout [Float]) -> Data {
        let file = plan(update.layout)
        var data = Data(count: file.byteCount)
        run(update, file, residual: &residual) { bytes, offset in
            data.replaceSubrange(offset..<(offset + bytes.count), with: bytes)
        }
        return data
    }

    /// Encodes one update in memory, without a value bound.
    public static func encode(
        _ update: ParameterVector,
        as encoding: UpdateEncoding,
        metadata: [String: String],
        seed: UInt64,
        residual: inout [Float]
    ) -> Data {
        UpdateEncoder(encoding, metadata: metadata, seed: seed).encode(update, residual: &residual)
    }

    // MARK: - The file

    /// Receives bytes for an offset in the file.
    private typealias Put<Failure: Error> = (UnsafeRawBufferPointer, _ offset: Int) throws(Failure) -> Void

    /// The header, and where each tensor's sections begin.
    private struct Plan {
        var header: Data
        /// For each tensor of the update, the offsets of its sections.
        var places: [[Int]]
        var byteCount: Int
    }

    private func plan(_ layout: ParameterLayout) -> Plan {
        var metadata = metadata
        if encoding != .f32 { metadata["encoding"] = encoding.rawValue }
        if encoding.rotatedBits != nil { metadata["rotation_seed"] = String(seed) }
        let sections = layout.tensors.map { self.sections(of: $0) }
        let all = sections.flatMap { $0 }
        var least = 0
        if hasFixedLength {
            var widest = metadata
            for name in ["num_examples", "num_tokens"] where metadata[name] != nil { widest[name] = Self.longestCount }
            if metadata["rotation_seed"] != nil { widest["rotation_seed"] = String(UInt64.max) }
            least = SafetensorsWriter.header(for: all, metadata: widest).header.count
        }
        let (header, starts, byteCount) = SafetensorsWriter.header(
            for: all,
            metadata: metadata,
            minimumByteCount: least
        )
        var next = 0
        let places = sections.map { tensor in
            defer { next += tensor.count }
            return Array(starts[next..<(next + tensor.count)])
        }
        return Plan(header: header, places: places, byteCount: byteCount)
    }

    private func run<Failure: Error>(
        _ update: ParameterVector,
        _ file: Plan,
        residual: inout [Float],
        _ put: Put<Failure>
    ) throws(Failure) {
        try Self.put(Array(file.header), at: 0, put)
        if encoding == .topk && residual.count != update.values.count {
            residual = [Float](repeating: 0, count: update.values.count)
        }
        var generator = Xoshiro256StarStar(seed: seed)
        for index in update.layout.tensors.indices {
            var places = file.places[index]
            let range = update.layout.offsets[index]..<update.layout.offsets[index + 1]
            if encoding == .topk {
                try sparse(update.values, range, &residual, &places, put)
                continue
            }
            var start = range.lowerBound
            while start < range.upperBound {
                let end = min(range.upperBound, start + Self.blockElementCount)
                let block = update.values[start..<end]
                try encode(block, tensor: index, at: start - range.lowerBound, &generator, &places, put)
                start = end
            }
        }
    }

    private func sections(of tensor: TensorSpecification) -> [SafetensorsWriter.Section] {
        let count = tensor.elementCount
        func blocks(_ size: Int) -> Int { (count + size - 1) / size }
        switch encoding {
        case .f32: return [.init(tensor.name, .float32, tensor.shape)]
        case .f16: return [.init(tensor.name, .float16, tensor.shape)]
        case .bf16: return [.init(tensor.name, .bfloat16, tensor.shape)]
        case .int8:
            return [
                .init(tensor.name, .int8, tensor.shape),
                .init(tensor.name + ".scale", .float32, [blocks(UpdateEncoding.int8Block)]),
            ]
        case .int4:
            return [
                .init(tensor.name + ".packed", .uint8, [(count + 1) / 2]),
                .init(tensor.name + ".scale", .float32, [blocks(UpdateEncoding.int4Block)]),
            ]
        case .topk:
            let kept = min(count, UpdateEncoding.keptCount(of: count))
            return [.init(tensor.name + ".indices", .uint32, [kept]), .init(tensor.name + ".values", .float32, [kept])]
        case .rotated1, .rotated2, .rotated4:
            let sizes = RandomRotation.blockSizes(of: count)
            let bytes = sizes.reduce(0, +) * (encoding.rotatedBits ?? 1) / 8
            return [
                .init(tensor.name + ".rotated", .uint8, [bytes]),
                .init(tensor.name + ".scale", .float32, [sizes.count]),
            ]
        }
    }

    /// Encodes a block of one tensor and advances its places in the file.
    private func encode<Failure: Error>(
        _ values: ArraySlice<Float>,
        tensor: Int,
        at start: Int,
        _ generator: inout Xoshiro256StarStar,
        _ places: inout [Int],
        _ put: Put<Failure>
    ) throws(Failure) {
        switch encoding {
        case .f32:
            try values.withUnsafeBufferPointer { buffer throws(Failure) in
                try put(UnsafeRawBufferPointer(buffer), places[0])
            }
            places[0] += 4 * values.count
        case .f16:
            let halves = values.map { value in
                let half = StochasticRounding.half(value, &generator)
                return isBeyond(HalfPrecision.float(fromBits: half), value) ? half - 1 : half
            }
            places[0] += try Self.put(halves, at: places[0], put)
        case .bf16:
            let halves = values.map { value in
                let half = StochasticRounding.brain(value, &generator)
                return isBeyond(Float(bitPattern: UInt32(half) << 16), value) ? half - 1 : half
            }
            places[0] += try Self.put(halves, at: places[0], put)
        case .int8:
            let (integers, scales) = blocks(values, size: UpdateEncoding.int8Block, limit: 127, &generator)
            places[0] += try Self.put(integers.map(Int8.init), at: places[0], put)
            places[1] += try Self.put(scales, at: places[1], put)
        case .int4:
            let (integers, scales) = blocks(values, size: UpdateEncoding.int4Block, limit: 7, &generator)
            var packed = [UInt8](repeating: 0, count: (integers.count + 1) / 2)
            for (position, integer) in integers.enumerated() {
                packed[position / 2] |= UInt8(integer + 8) << UInt8(position % 2 * 4)
            }
            places[0] += try Self.put(packed, at: places[0], put)
            places[1] += try Self.put(scales, at: places[1], put)
        case .topk: break
        case .rotated1, .rotated2, .rotated4:
            let (packed, scales) = rotated(
                values,
                bits: encoding.rotatedBits ?? 1,
                tensor: tensor,
                firstBlock: start / UpdateEncoding.rotationBlock
            )
            places[0] += try Self.put(packed, at: places[0], put)
            places[1] += try Self.put(scales, at: places[1], put)
        }
    }

    /// Writes values and returns how many bytes they have.
    @discardableResult
    private static func put<Value: BitwiseCopyable, Failure: Error>(
        _ values: [Value],
        at offset: Int,
        _ put: Put<Failure>
    ) throws(Failure) -> Int {
        try values.withUnsafeBufferPointer { buffer throws(Failure) in try put(UnsafeRawBufferPointer(buffer), offset) }
        return values.count * MemoryLayout<Value>.stride
    }

    /// Whether rounding moved a value that was within the bound beyond it.
    private func isBeyond(_ decoded: Float, _ value: Float) -> Bool {
        abs(decoded) > valueBound && abs(value) <= valueBound
    }

    // MARK: - Integers

    private func blocks(
        _ values: ArraySlice<Float>,
        size: Int,
        limit: Float,
        _ generator: inout Xoshiro256StarStar
    ) -> (integers: [Int32], scales: [Float]) {
        var integers: [Int32] = []
        var scales: [Float] = []
        integers.reserveCapacity(values.count)
        var start = values.startIndex
        while start < values.endIndex {
            let block = values[start..<min(values.endIndex, start + size)]
            let largest = block.reduce(Float(0)) { max($0, abs($1)) }
            // A subnormal scale would lose bits. Such a block is written as zeros with scale 1.
            var scale = largest / limit
            if scale < .leastNormalMagnitude { scale = 1 }
            // The division may have rounded up: then `limit * scale` is more than the largest value.
            if isBeyond(limit * scale, largest) { scale = scale.nextDown }
            scales.append(scale)
            for value in block {
                let integer = StochasticRounding.integer(value / scale, &generator)
                integers.append(max(-Int32(limit), min(Int32(limit), integer)))
            }
            start = block.endIndex
        }
        return (integers, scales)
    }

    // MARK: - The largest values

    private func sparse<Failure: Error>(
        _ values: [Float],
        _ range: Range<Int>,
        _ residual: inout [Float],
        _ places: inout [Int],
        _ put: Put<Failure>
    ) throws(Failure) {
        for index in range { residual[index] += values[index] }
        let count = min(range.count, UpdateEncoding.keptCount(of: range.count))
        let kept = LargestMagnitudes.positions(of: count, in: residual[range])
        try Self.put(kept.map { UInt32($0 - range.lowerBound) }, at: places[0], put)
        let sent = kept.map { max(-valueBound, min(valueBound, residual[$0])) }
        try Self.put(sent, at: places[1], put)
        // The part beyond the bound stays in the residual for the next update.
        for (position, value) in zip(kept, sent) { residual[position] -= value }
    }

    // MARK: - Rotation

    private func rotated(
        _ values: ArraySlice<Float>,
        bits: Int,
        tensor: Int,
        firstBlock: Int
    ) -> (packed: [UInt8], scales: [Float]) {
        let boundaries = NormalQuantizer.boundaries(bits: bits)
        let points = NormalQuantizer.values(bits: bits)
        var packed: [UInt8] = []
        var scales: [Float] = []
        var start = values.startIndex
        for (block, size) in RandomRotation.blockSizes(of: values.count).enumerated() {
            let end = min(values.endIndex, start + size)
            let original = values[start..<end]
            var rotated = Array(original) + [Float](repeating: 0, count: size - original.count)
            start = end
            let squares = VectorKernels.squaredNorm(rotated)
            let first = packed.count
            packed += [UInt8](repeating: 0, count: size * bits / 8)
            guard squares > 0, squares.isFinite else {
                scales.append(0)
                continue
            }
            let blockSeed = RandomRotation.seed(seed, tensor: tensor, block: firstBlock + block)
            rotated.withUnsafeMutableBufferPointer { RandomRotation.rotate($0, seed: blockSeed) }
            // The points are for values of unit variance.
            let toUnit = Float((Double(size) / squares).squareRoot())
            var product = 0.0
            var quantized = [Float](repeating: 0, count: size)
            for index in 0..<size {
                let code = NormalQuantizer.code(rotated[index] * toUnit, boundaries: boundaries, bits: bits)
                quantized[index] = points[Int(code)]
                product += Double(rotated[index]) * Double(points[Int(code)])
                packed[first + index * bits / 8] |= code << UInt8(index * bits % 8)
            }
            // ‖v‖² / ⟨Rv, q⟩ makes the decoded vector unbiased (DRIVE, Theorem 4).
            let scale = Float(squares / product)
            // The smallest floats rotate to zeros, and the largest to infinities. Such a block is written as zeros: a scale that the server
            // refuses would let the data decide the answer.
            guard toUnit > 0, toUnit.isFinite, product > 0, product.isFinite, scale > 0, scale.isFinite,
                Double(scale) * VectorKernels.squaredNorm(quantized).squareRoot()
                    <= Double(Float.greatestFiniteMagnitude)
            else {
                scales.append(0)
                continue
            }
            scales.append(withinBound(scale, quantized, original, blockSeed))
        }
        return (packed, scales)
    }

    /// The scale, reduced if a decoded value would be beyond the bound.
    ///
    /// That happens in blocks with a value near the bound.
    private func withinBound(
        _ scale: Float,
        _ quantized: [Float],
        _ original: ArraySlice<Float>,
        _ blockSeed: UInt64
    ) -> Float {
        // A rotation keeps the norm, and no value is larger than the norm, so most blocks need no decoding here.
        guard Double(scale) * VectorKernels.squaredNorm(quantized).squareRoot() > 0.99 * Double(valueBound),
            original.allSatisfy({ abs($0) <= valueBound })
        else { return scale }
        var scale = scale
        while true {
            var decoded = quantized.map { $0 * scale }
            decoded.withUnsafeMutableBufferPointer { RandomRotation.rotateBack($0, seed: blockSeed) }
            let largest = decoded.reduce(Float(0)) { max($0, abs($1)) }
            guard largest > valueBound else { return scale }
            // Rounding may leave a value a little too large, and then the loop runs again.
            scale *= valueBound / largest * (1 - 0x1p-20)
        }
    }
}
