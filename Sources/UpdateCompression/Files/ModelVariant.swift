import Foundation
public import Tensors

/// Writes a model in fewer bits for its way to the devices, in the encodings of updates.
///
/// Values are rounded to nearest and not at random, so that all devices start from the same model. Memory is one block and the scales.
public enum ModelVariant {
    /// The encodings that a model can have on the wire beside ``UpdateEncoding/f32``.
    public static let encodings: [UpdateEncoding] = [.f16, .int8]

    /// Writes a variant; ``UpdateFile`` reads it.
    ///
    /// - Parameters:
    ///   - path: The model, a safetensors file of any dtype that `SafetensorsFile` reads.
    ///   - encoding: One of ``encodings``.
    ///   - write: Receives the file's bytes in order.
    /// - Throws: `SafetensorsError`, or what `write` throws.
    public static func write(
        _ path: String,
        as encoding: UpdateEncoding,
        to write: (UnsafeRawBufferPointer) throws -> Void
    ) throws {
        precondition(encodings.contains(encoding), "a model cannot be sent as \(encoding.rawValue)")
        let file = try SafetensorsFile(path: path)
        let metadata = ["encoding": encoding.rawValue]
        if encoding == .f16 {
            let tensors = file.layout.tensors.map { ($0.name, "F16", $0.shape) }
            try SafetensorsWriter.header(of: tensors, metadata: metadata).withUnsafeBytes { try write($0) }
            return try writeHalves(file, to: write)
        }
        // Scales of four bytes come first, so that they are aligned.
        let tensors = file.layout.tensors
        let size = UpdateEncoding.int8Block
        let scaleShapes = tensors.map { ($0.name + ".scale", "F32", [($0.elementCount + size - 1) / size]) }
        let header = SafetensorsWriter.header(
            of: scaleShapes + tensors.map { ($0.name, "I8", $0.shape) },
            metadata: metadata
        )
        try header.withUnsafeBytes { try write($0) }
        let scales = try scales(of: file)
        try scales.withUnsafeBytes { try write($0) }
        try writeIntegers(file, scales, to: write)
    }

    // MARK: -

    private static func writeHalves(_ file: SafetensorsFile, to write: (UnsafeRawBufferPointer) throws -> Void) throws {
        var halves: [UInt16] = []
        try forEachBlock(of: file) { _, values in
            halves.removeAll(keepingCapacity: true)
            // A larger value becomes the largest finite half: one infinity would spoil the model.
            for value in values { halves.append(Float16(max(-65504, min(65504, value))).bitPattern.littleEndian) }
            try halves.withUnsafeBytes { try write($0) }
        }
    }

    private static func scales(of file: SafetensorsFile) throws -> [Float] {
        var scales: [Float] = []
        try forEachBlock(of: file) { _, values in
            var start = 0
            while start < values.count {
                let end = min(values.count, start + UpdateEncoding.int8Block)
                let largest = values[start..<end].reduce(Float(0)) { max($0, abs($1)) }
                // A subnormal scale would lose bits. Such a block is written as zeros with scale 1.
                scales.append(largest / 127 >= .leastNormalMagnitude ? largest / 127 : 1)
                start = end
            }
        }
        return scales
    }

    private static func writeIntegers(
        _ file: SafetensorsFile,
        _ scales: [Float],
        to write: (UnsafeRawBufferPointer) throws -> Void
    ) throws {
        var integers: [Int8] = []
        var firstScale = 0
        try forEachBlock(of: file) { _, values in
            integers.removeAll(keepingCapacity: true)
            for (position, value) in values.enumerated() {
                let scale = scales[firstScale + position / UpdateEncoding.int8Block]
                integers.append(Int8(max(-127, min(127, (value / scale).rounded(.toNearestOrEven)))))
            }
            firstScale += (values.count + UpdateEncoding.int8Block - 1) / UpdateEncoding.int8Block
            try integers.withUnsafeBytes { try write($0) }
        }
    }

    /// Calls `body` with the values of each tensor, in blocks that are whole blocks of scales.
    private static func forEachBlock(
        of file: SafetensorsFile,
        _ body: (Int, ArraySlice<Float>) throws -> Void
    ) throws {
        var block = [Float](repeating: 0, count: 1 << 16)
        for tensor in file.layout.tensors.indices {
            var start = file.layout.offsets[tensor]
            while start < file.layout.offsets[tensor + 1] {
                let range = start..<min(file.layout.offsets[tensor + 1], start + block.count)
                try file.read(range, into: &block)
                try body(tensor, block[..<range.count])
                start = range.upperBound
            }
        }
    }
}
