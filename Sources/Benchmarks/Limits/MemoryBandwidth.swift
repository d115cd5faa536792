import BenchmarkHarness
import CKernels
import Foundation
import Tensors

#if canImport(Glibc)
import Glibc
#endif

/// What the machine's memory and page cache give, with as many threads as cores.
enum MemoryBandwidth {
    /// Seconds to read every byte of the buffers once.
    static func read(_ buffers: [UnsafeRawBufferPointer]) -> Double {
        let pieces = Self.pieces(buffers.map(\.count))
        let sources = Sources(buffers)
        return Stopwatch.seconds {
            Parallel.forEach(count: pieces.count) { index in
                let (buffer, range) = pieces[index]
                guard let base = sources.buffers[buffer].baseAddress else { return }
                let words = (base + range.lowerBound).assumingMemoryBound(to: UInt64.self)
                blackHole(martlet_read_words(words, range.count / 8))
            }
        }
    }

    /// Seconds to `pread` every byte of the files once, into the same small buffers.
    static func pread(_ paths: [String]) throws -> Double {
        let descriptors = paths.map { open($0, O_RDONLY) }
        defer { for descriptor in descriptors { close(descriptor) } }
        let sizes = descriptors.map { Int(lseek($0, 0, SEEK_END)) }
        let pieces = Self.pieces(sizes)
        return Stopwatch.seconds {
            Parallel.forEach(count: pieces.count) { index in
                let (file, range) = pieces[index]
                withUnsafeTemporaryAllocation(byteCount: 1 << 16, alignment: 64) { space in
                    var position = range.lowerBound
                    while position < range.upperBound {
                        let count = Glibc.pread(descriptors[file], space.baseAddress, space.count, off_t(position))
                        guard count > 0 else { return }
                        position += count
                    }
                }
            }
        }
    }

    private struct Sources: @unchecked Sendable {
        // SAFETY: only read, while the caller waits.
        let buffers: [UnsafeRawBufferPointer]
        init(_ buffers: [UnsafeRawBufferPointer]) { self.buffers = buffers }
    }

    private static func pieces(_ sizes: [Int]) -> [(Int, Range<Int>)] {
        sizes.enumerated().flatMap { index, size in
            stride(from: 0, to: size, by: 1 << 20).map { (index, $0..<min(size, $0 + (1 << 20))) }
        }
    }
}

/// Keeps the compiler from leaving out what nobody uses.
@inline(never) @_optimize(none) func blackHole(_ value: UInt64) {}
