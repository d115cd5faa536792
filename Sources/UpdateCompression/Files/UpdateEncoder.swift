public import Foundation
public import Tensors

/// Writes an update in the encoding that the run asks for.
///
/// Encoding is post-processing: where noise was added before (mode `local`) it costs no privacy, and in mode `central`
/// the server clips again what it decodes.
public enum UpdateEncoder {
    /// Encodes.
    ///
    /// - Parameters:
    ///   - update: Every value finite.
    ///   - encoding: The run's.
    ///   - metadata: Goes into the file as it is.
    ///   - seed: Draws the rounding and the rotation: fresh for each update, and unknown before it.
    ///   - residual: With ``UpdateEncoding/topk`` what earlier updates left out, in the update's layout; receives what this
    ///     one leaves out. Other encodings leave it alone.
    /// - Returns: A safetensors file.
    public static func encode(
        _ update: ParameterVector,
        as encoding: UpdateEncoding,
        metadata: [String: String],
        seed: UInt64,
        residual: inout [Float]
    ) -> Data {
        if encoding == .f32 { return SafetensorsWriter.encode(update, metadata: metadata) }
        var generator = Xoshiro256StarStar(seed: seed)
        var metadata = metadata
        metadata["encoding"] = encoding.rawValue
        if encoding.rotatedBits != nil { metadata["rotation_seed"] = String(seed) }
        var tensors: [SafetensorsWriter.RawTensor] = []
        for (index, tensor) in update.layout.tensors.enumerated() {
            let range = update.layout.offsets[index]..<update.layout.offsets[index + 1]
            let values = update.values[range]
            switch encoding {
            case .f32: break
            case .f16:
                let halves = values.map { StochasticRounding.half($0, &generator).littleEndian }
                tensors.append(.init(tensor.name, "F16", tensor.shape, halves))
            case .bf16:
                let halves = values.map { StochasticRounding.brain($0, &generator).littleEndian }
                tensors.append(.init(tensor.name, "BF16", tensor.shape, halves))
            case .int8:
                let (integers, scales) = blocks(values, size: UpdateEncoding.int8Block, limit: 127, &generator)
                tensors.append(.init(tensor.name, "I8", tensor.shape, integers.map(Int8.init)))
                tensors.append(.init(tensor.name + ".scale", "F32", [scales.count], scales))
            case .int4:
                let (integers, scales) = blocks(values, size: UpdateEncoding.int4Block, limit: 7, &generator)
                var packed = [UInt8](repeating: 0, count: (integers.count + 1) / 2)
                for (position, integer) in integers.enumerated() {
                    packed[position / 2] |= UInt8(integer + 8) << UInt8(position % 2 * 4)
                }
                tensors.append(.init(tensor.name + ".packed", "U8", [packed.count], packed))
                tensors.append(.init(tensor.name + ".scale", "F32", [scales.count], scales))
            case .topk:
                if residual.count != update.values.count {
                    residual = [Float](repeating: 0, count: update.values.count)
                }
                let (indices, kept) = largest(values, residual: &residual, range: range)
                tensors.append(.init(tensor.name + ".indices", "U32", [indices.count], indices))
                tensors.append(.init(tensor.name + ".values", "F32", [kept.count], kept))
            case .rotated1, .rotated2, .rotated4:
                let (packed, scales) = rotated(values, bits: encoding.rotatedBits ?? 1, seed: seed, tensor: index)
                tensors.append(.init(tensor.name + ".rotated", "U8", [packed.count], packed))
                tensors.append(.init(tensor.name + ".scale", "F32", [scales.count], scales))
            }
        }
        return SafetensorsWriter.encode(tensors, metadata: metadata)
    }

    // MARK: - One tensor

    private static func blocks(
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
            // A scale below the smallest normal number would lose bits; such a block is zero, and says so with scale 1.
            let scale = largest / limit >= .leastNormalMagnitude ? largest / limit : 1
            scales.append(scale)
            for value in block {
                let integer = StochasticRounding.integer(value / scale, &generator)
                integers.append(max(-Int32(limit), min(Int32(limit), integer)))
            }
            start = block.endIndex
        }
        return (integers, scales)
    }

    private static func largest(
        _ values: ArraySlice<Float>,
        residual: inout [Float],
        range: Range<Int>
    ) -> (indices: [UInt32], values: [Float]) {
        for index in range { residual[index] += values[index] }
        let count = UpdateEncoding.keptCount(of: values.count)
        let order = range.sorted { left, right in
            let (a, b) = (abs(residual[left]), abs(residual[right]))
            return a == b ? left < right : a > b
        }
        let kept = order.prefix(count).sorted()
        let result = (kept.map { UInt32($0 - range.lowerBound) }, kept.map { residual[$0] })
        for index in kept { residual[index] = 0 }
        return result
    }

    private static func rotated(
        _ values: ArraySlice<Float>,
        bits: Int,
        seed: UInt64,
        tensor: Int
    ) -> (packed: [UInt8], scales: [Float]) {
        let boundaries = NormalQuantizer.boundaries(bits: bits)
        let points = NormalQuantizer.values(bits: bits)
        var packed: [UInt8] = []
        var scales: [Float] = []
        var start = values.startIndex
        for (block, size) in RandomRotation.blockSizes(of: values.count).enumerated() {
            let end = min(values.endIndex, start + size)
            var rotated = Array(values[start..<end]) + [Float](repeating: 0, count: size - (end - start))
            start = end
            let squares = VectorKernels.squaredNorm(rotated)
            let first = packed.count
            packed += [UInt8](repeating: 0, count: size * bits / 8)
            guard squares > 0, squares.isFinite else {
                scales.append(0)
                continue
            }
            rotated.withUnsafeMutableBufferPointer {
                RandomRotation.rotate($0, seed: RandomRotation.seed(seed, tensor: tensor, block: block))
            }
            // Values of unit variance are what the points are made for.
            let toUnit = Float((Double(size) / squares).squareRoot())
            var product = 0.0
            for index in 0..<size {
                let code = NormalQuantizer.code(rotated[index] * toUnit, boundaries: boundaries, bits: bits)
                product += Double(rotated[index]) * Double(points[Int(code)])
                packed[first + index * bits / 8] |= code << UInt8(index * bits % 8)
            }
            // ‖v‖² / ⟨Rv, q⟩ makes the decoded vector unbiased (DRIVE, Theorem 4).
            scales.append(Float(squares / product))
        }
        return (packed, scales)
    }
}
