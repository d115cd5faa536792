import Synchronization
import Tensors
import Testing

/// Work that is cut into blocks.
struct ParallelTests {
    private struct Wrong: Error, Equatable {
        let place: Int
    }

    @Test(arguments: [0, 1, 6, 7, 8, 1000])
    func blocksCoverEachPlaceOnce(count: Int) {
        let seen = Mutex([Int](repeating: 0, count: count))
        Parallel.blocks(of: count, size: 7) { block in
            seen.withLock { seen in for place in block { seen[place] += 1 } }
        }
        #expect(seen.withLock { $0 } == [Int](repeating: 1, count: count))
    }

    @Test func aBlockHasItsPartOfABuffer() {
        var values = [Int](repeating: 0, count: 1003)
        values.withUnsafeMutableBufferPointer { buffer in
            Parallel.blocks(of: buffer, size: 100) { block, part in
                for place in part.indices { part[place] += block.lowerBound + place }
            }
        }
        #expect(values == Array(0..<1003))
    }

    /// The error must not depend on which thread was faster.
    @Test func theFirstBlocksErrorIsThrown() {
        for _ in 0..<50 {
            #expect(throws: Wrong(place: 30)) {
                try Parallel.blocks(of: 1000, size: 10) { (block) throws(Wrong) in
                    if block.lowerBound >= 30 { throw Wrong(place: block.lowerBound) }
                }
            }
        }
    }

    @Test func aThreadKeepsItsMemory() {
        let made = Atomic<Int>(0)
        let blocks = Atomic<Int>(0)
        let count: @Sendable (Range<Int>, Int) -> Void = { _, _ in blocks.add(1, ordering: .relaxed) }
        Parallel.blocks(of: 100_000, size: 10, memory: { made.add(1, ordering: .relaxed).newValue }, count)
        #expect(blocks.load(ordering: .relaxed) == 10_000)
        #expect((1...1000).contains(made.load(ordering: .relaxed)))
    }
}
