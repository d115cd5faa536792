import CLibrary
import Foundation
import Synchronization

/// An open safetensors file whose values are read block by block, so that memory does not grow with the file.
///
/// Reading is positioned (`pread`) and nothing changes after opening, so threads may read at the same time.
public final class SafetensorsFile: Sendable {
    /// The checked header.
    public let header: SafetensorsHeader
    /// The layout of the header's tensors (sorted by name).
    public let layout: ParameterLayout
    private let descriptor: Int32
    private let path: String
    /// The entries in the order of the layout.
    private let sortedEntries: [SafetensorsHeader.Entry]

    /// Opens a file and checks its header.
    ///
    /// - Parameters:
    ///   - path: The file.
    ///   - followsLinks: Whether the path itself may be a symbolic link. Its directories always may.
    /// - Throws: ``SafetensorsError``, also for a directory, a pipe or a device.
    public init(path: String, followsLinks: Bool = true) throws(SafetensorsError) {
        // Without O_NONBLOCK, `open` would wait for a pipe's writer.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | (followsLinks ? 0 : O_NOFOLLOW))
        guard descriptor >= 0 else { throw .inputOutput(path: path, errno: errno) }
        do throws(SafetensorsError) {
            var status = stat()
            guard fstat(descriptor, &status) == 0 else { throw .inputOutput(path: path, errno: errno) }
            guard status.st_mode & S_IFMT == S_IFREG else { throw .inputOutput(path: path, errno: EINVAL) }
            let fileByteCount = Int(status.st_size)
            let prefix = try Self.read(descriptor, path: path, at: 0, count: min(8, fileByteCount))
            let length = try SafetensorsHeader.headerByteCount(prefix)
            guard 8 + length <= fileByteCount else {
                throw .truncated(expectedByteCount: 8 + length, actualByteCount: fileByteCount)
            }
            let json = try Self.read(descriptor, path: path, at: 8, count: length)
            header = try SafetensorsHeader(json: json, fileByteCount: fileByteCount)
        } catch {
            close(descriptor)
            throw error
        }
        self.descriptor = descriptor
        self.path = path
        layout = header.layout
        sortedEntries = header.entries.sorted {
            $0.specification.name.utf8.lexicographicallyPrecedes($1.specification.name.utf8)
        }
    }

    deinit { close(descriptor) }

    /// Reads values in the order of the layout.
    ///
    /// - Parameters:
    ///   - range: Positions in the flat vector.
    ///   - buffer: Receives `range.count` floats from its first element on.
    /// - Throws: ``SafetensorsError/inputOutput(path:errno:)``, or ``SafetensorsError/truncated(expectedByteCount:actualByteCount:)`` if
    ///   the file became shorter after it was opened.
    public func read(_ range: Range<Int>, into buffer: inout [Float]) throws(SafetensorsError) {
        precondition(buffer.count >= range.count, "buffer too small")
        var failure: SafetensorsError?
        buffer.withUnsafeMutableBufferPointer { values in
            let part = UnsafeMutableBufferPointer(rebasing: values[..<range.count])
            do throws(SafetensorsError) { try read(range, into: part) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    /// Reads the whole file, on all cores if it has more than 2²⁰ values.
    ///
    /// - Throws: As ``read(_:into:)``.
    public func readAll() throws(SafetensorsError) -> ParameterVector {
        let count = layout.parameterCount
        var failure: SafetensorsError?
        let values = [Float](unsafeUninitializedCapacity: count) { buffer, initializedCount in
            let target = UnsafeMutableBufferPointer(rebasing: buffer[..<count])
            do throws(SafetensorsError) {
                try Parallel.blocks(of: target, size: 1 << 20) { (range, part) throws(SafetensorsError) in
                    try read(range, into: part)
                }
                initializedCount = count
            } catch {
                // Parts of the buffer are uninitialised.
                failure = error
            }
        }
        if let failure { throw failure }
        return ParameterVector(layout: layout, values: values)
    }

    private func read(_ range: Range<Int>, into values: UnsafeMutableBufferPointer<Float>) throws(SafetensorsError) {
        precondition(range.lowerBound >= 0 && range.upperBound <= layout.parameterCount, "range outside the file")
        for (index, entry) in sortedEntries.enumerated() {
            let overlap = range.clamped(to: layout.offsets[index]..<layout.offsets[index + 1])
            guard !overlap.isEmpty else { continue }
            let fileOffset =
                entry.fileRange.lowerBound + (overlap.lowerBound - layout.offsets[index]) * entry.dataType.byteCount
            let start = overlap.lowerBound - range.lowerBound
            if entry.dataType == .float32 {
                // Little-endian floats, straight into the buffer.
                let part = UnsafeMutableBufferPointer(rebasing: values[start..<(start + overlap.count)])
                try Self.fill(UnsafeMutableRawBufferPointer(part), descriptor, path: path, at: fileOffset)
                #if _endian(big)
                for index in part.indices { part[index] = Float(bitPattern: part[index].bitPattern.byteSwapped) }
                #endif
                continue
            }
            let bytes = try Self.read(
                descriptor,
                path: path,
                at: fileOffset,
                count: overlap.count * entry.dataType.byteCount
            )
            bytes.withUnsafeBytes { raw in
                for position in 0..<overlap.count {
                    values.initializeElement(
                        at: start + position,
                        to: Self.decode(raw, at: position, as: entry.dataType)
                    )
                }
            }
        }
    }

    private static func decode(_ raw: UnsafeRawBufferPointer, at index: Int, as dataType: TensorDataType) -> Float {
        switch dataType {
        case .float32:
            Float(bitPattern: UInt32(littleEndian: raw.loadUnaligned(fromByteOffset: index * 4, as: UInt32.self)))
        case .bfloat16:
            Float(
                bitPattern: UInt32(UInt16(littleEndian: raw.loadUnaligned(fromByteOffset: index * 2, as: UInt16.self)))
                    << 16
            )
        case .float16:
            HalfPrecision.float(
                fromBits: UInt16(littleEndian: raw.loadUnaligned(fromByteOffset: index * 2, as: UInt16.self))
            )
        case .int8: Float(Int8(bitPattern: raw[index]))
        case .uint8: Float(raw[index])
        case .uint32: Float(UInt32(littleEndian: raw.loadUnaligned(fromByteOffset: index * 4, as: UInt32.self)))
        }
    }

    private static func read(
        _ descriptor: Int32,
        path: String,
        at offset: Int,
        count: Int
    ) throws(SafetensorsError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var failure: SafetensorsError?
        bytes.withUnsafeMutableBytes { raw in
            do throws(SafetensorsError) { try fill(raw, descriptor, path: path, at: offset) } catch { failure = error }
        }
        if let failure { throw failure }
        return bytes
    }

    private static func fill(
        _ space: UnsafeMutableRawBufferPointer,
        _ descriptor: Int32,
        path: String,
        at offset: Int
    ) throws(SafetensorsError) {
        var done = 0
        while done < space.count {
            let received = pread(
                descriptor,
                space.baseAddress.map { $0 + done },
                space.count - done,
                off_t(offset + done)
            )
            if received < 0 && errno == EINTR { continue }
            guard received > 0 else {
                if received < 0 { throw .inputOutput(path: path, errno: errno) }
                throw .truncated(expectedByteCount: offset + space.count, actualByteCount: offset + done)
            }
            done += received
        }
    }
}

/// IEEE 754 binary16 without hardware support.
package enum HalfPrecision {
    /// The value of 16 bits.
    package static func float(fromBits bits: UInt16) -> Float {
        let sign = UInt32(bits & 0x8000) << 16
        let exponent = UInt32(bits >> 10) & 0x1F
        let fraction = UInt32(bits & 0x3FF)
        switch exponent {
        case 0:
            let magnitude = Float(fraction) * 0x1p-24
            return sign == 0 ? magnitude : -magnitude
        case 31:
            return Float(bitPattern: sign | 0x7F80_0000 | fraction << 13)
        default:
            return Float(bitPattern: sign | (exponent + 112) << 23 | fraction << 13)
        }
    }
}
