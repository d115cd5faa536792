import Dispatch
import Foundation
import Synchronization

/// Runs independent pieces of arithmetic on all cores.
///
/// Every function blocks the caller until all pieces are done. Do not call them for long work from an actor or from a thread of the
/// cooperative pool.
public enum Parallel {
    /// Runs `body(0)` to `body(count - 1)`, in any order and at the same time, and returns when all are done.
    public static func forEach(count: Int, _ body: @Sendable (Int) -> Void) {
        guard count > 1 else {
            if count == 1 { body(0) }
            return
        }
        DispatchQueue.concurrentPerform(iterations: count, execute: body)
    }

    /// Cuts `0..<count` into blocks and runs `body` on each of them, in any order and at the same time.
    ///
    /// - Parameters:
    ///   - count: The end of the last block.
    ///   - size: The length of every block but the last.
    ///   - body: Receives a block.
    /// - Throws: The error of the first block, in the order of the blocks, that has one.
    public static func blocks<Failure: Error>(
        of count: Int,
        size: Int,
        _ body: @Sendable (_ block: Range<Int>) throws(Failure) -> Void
    ) throws(Failure) {
        @Sendable func withoutMemory(_ block: Range<Int>, _: Void) throws(Failure) { try body(block) }
        try blocks(of: count, size: size, memory: {}, withoutMemory)
    }

    /// Cuts a buffer into blocks and runs `body` on each of them, in any order and at the same time.
    ///
    /// - Parameters:
    ///   - values: The buffer; one block at a time may write to its part.
    ///   - size: The length of every block but the last.
    ///   - body: Receives the places of a block in the buffer, and its part of the buffer, which begins at 0.
    /// - Throws: The error of the first block, in the order of the blocks, that has one.
    public static func blocks<Element, Failure: Error>(
        of values: UnsafeMutableBufferPointer<Element>,
        size: Int,
        _ body: @Sendable (_ block: Range<Int>, _ part: UnsafeMutableBufferPointer<Element>) throws(Failure) -> Void
    ) throws(Failure) {
        let target = Target(values: values)
        try blocks(of: values.count, size: size) { (block) throws(Failure) in
            try body(block, UnsafeMutableBufferPointer(rebasing: target.values[block]))
        }
    }

    private struct Target<Element>: @unchecked Sendable {
        // SAFETY: each block has a part of its own, and all blocks end before the call that was given the buffer does.
        let values: UnsafeMutableBufferPointer<Element>
    }

    /// Cuts `0..<count` into blocks and runs `body` on each of them, on as many threads as cores, each with memory of its own.
    ///
    /// - Parameters:
    ///   - count: The end of the last block.
    ///   - size: The length of every block but the last.
    ///   - memory: Makes the memory that one thread uses for block after block.
    ///   - body: Receives a block and the thread's memory.
    /// - Throws: The error of the first block, in the order of the blocks, that has one.
    public static func blocks<Memory, Failure: Error>(
        of count: Int,
        size: Int,
        memory: @Sendable () -> Memory,
        _ body: @Sendable (_ block: Range<Int>, _ memory: Memory) throws(Failure) -> Void
    ) throws(Failure) {
        precondition(size > 0, "a block has a length")
        let blockCount = (count + size - 1) / size
        let failure = Mutex<(block: Int, error: Failure)?>(nil)
        let next = Atomic<Int>(0)
        forEach(count: min(blockCount, ProcessInfo.processInfo.activeProcessorCount)) { _ in
            let memory = memory()
            while true {
                let block = next.wrappingAdd(1, ordering: .relaxed).oldValue
                guard block < blockCount else { return }
                do throws(Failure) {
                    try body((block * size)..<min(count, (block + 1) * size), memory)
                } catch {
                    failure.withLock { first in
                        if first.map({ $0.block > block }) ?? true { first = (block, error) }
                    }
                    // No further block starts. Earlier blocks are done or in work.
                    next.store(blockCount, ordering: .relaxed)
                }
            }
        }
        if let first = failure.withLock({ $0 }) { throw first.error }
    }
}
