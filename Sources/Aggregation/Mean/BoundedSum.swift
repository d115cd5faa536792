import Synchronization
public import Tensors
import UpdateCompression

/// The sum of clipped updates on the noise grid: what noise is added to (mode `central`).
///
/// Every update's norm on the grid is checked exactly in integers, whatever its client claims to have clipped: the norm of the whole
/// update, or of each layer if layers have bounds. An update over the bound is scaled under it. Each file is read twice: for the norm,
/// then for the sum.
public enum BoundedSum {
    /// The measure that a bound limits.
    public enum Measure: Sendable {
        /// The exact sum of squares: L2 norms.
        case squares
        /// The exact sum of magnitudes: L1 norms.
        case magnitudes
    }

    /// A range of coordinates with a bound of its own: the whole update, or one layer.
    public struct Part: Sendable {
        /// Positions in the flat vector; the parts follow each other and cover the update.
        public var range: Range<Int>
        /// The factor, from 0 to 1, that brings a part with this exact measure under its bound; 1 for a part within it.
        public var shrinkFactor: @Sendable (UInt128) -> Double

        /// Creates a part.
        public init(range: Range<Int>, shrinkFactor: @escaping @Sendable (UInt128) -> Double) {
            self.range = range
            self.shrinkFactor = shrinkFactor
        }
    }

    /// The noise grid, as the operations that the sum needs.
    public struct Grid: Sendable {
        /// Rounds a block of values, each first multiplied by a weight from 0 to 1, to grid units.
        public var quantizeBlock:
            @Sendable (_ values: UnsafeBufferPointer<Float>, _ weight: Double, _ result: UnsafeMutablePointer<Int64>)
                -> Void
        /// The measure that the bounds limit.
        public var measure: Measure
        /// The parts and their bounds, in the order of the vector.
        public var parts: [Part]

        /// Creates a grid.
        public init(
            parts: [Part],
            measure: Measure = .squares,
            quantizeBlock:
                @escaping @Sendable (UnsafeBufferPointer<Float>, Double, UnsafeMutablePointer<Int64>) -> Void
        ) {
            self.parts = parts
            self.measure = measure
            self.quantizeBlock = quantizeBlock
        }

        /// Creates a grid with one bound on the L2 norm of the whole update; `quantize` rounds one value.
        public init(
            quantize: @escaping @Sendable (Float, Double) -> Int64,
            shrinkFactor: @escaping @Sendable (UInt128) -> Double
        ) {
            self.init(parts: [Part(range: 0..<Int.max, shrinkFactor: shrinkFactor)]) { values, weight, result in
                for index in 0..<values.count { result[index] = quantize(values[index], weight) }
            }
        }
    }

    /// Sums updates.
    ///
    /// The additions cannot overflow for a grid of the privacy mechanisms: the bound caps a coordinate at K ≤ 2³²/0.1, so that 64 bits
    /// hold 2·10⁸ updates, and a cohort has 10⁶ at most. For a grid of other makers `count · K` must be under 2⁶³; the process traps
    /// beyond.
    ///
    /// - Parameters:
    ///   - updates: Files for the model's layout; a weight above `weightCap` counts as `weightCap`.
    ///   - layout: The model's layout.
    ///   - weightCap: The weight that counts as 1.
    ///   - grid: The noise grid.
    ///   - blockElementCount: Parameters of a block.
    /// - Returns: The exact sum without noise, a secret. Shape `[parameterCount]`, grid units.
    /// - Throws: ``AggregationError``.
    public static func sum(
        of updates: [SpooledUpdate],
        layout: ParameterLayout,
        weightCap: Int,
        grid: Grid,
        blockElementCount: Int = FixedPointMean.defaultBlockElementCount
    ) throws(AggregationError) -> [Int64] {
        let opened = try BlockFold.open(updates, layout: layout)
        let size = blockElementCount
        let factors = try opened.map { file, update throws(AggregationError) in
            try shrinkFactors(of: file, update, weight: share(update, weightCap), grid: grid, blockElementCount: size)
        }
        var failure: AggregationError?
        let sums = [Int64](unsafeUninitializedCapacity: layout.parameterCount) { buffer, initialized in
            guard let base = buffer.baseAddress else { return }
            let target = UncheckedTarget(base)
            do throws(AggregationError) {
                try BlockFold.blocks(count: layout.parameterCount, size: size) {
                    (range, thread) throws(AggregationError) in
                    let sums = target.pointer + range.lowerBound
                    sums.update(repeating: 0, count: range.count)
                    for ((file, update), factors) in zip(opened, factors) {
                        try quantize(file, update, range, share(update, weightCap), grid, thread)
                        let integers = thread.sums
                        forEachPart(grid.parts, of: range) { part, start, end in
                            let factor = part < factors.count ? factors[part] : 0
                            if factor < 1 {
                                // Truncation toward zero cannot raise the norm.
                                for index in start..<end { sums[index] += Int64(Double(integers[index]) * factor) }
                            } else {
                                for index in start..<end { sums[index] += integers[index] }
                            }
                        }
                    }
                }
                initialized = layout.parameterCount
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return sums
    }

    private static func share(_ update: SpooledUpdate, _ cap: Int) -> Double {
        Double(min(update.weight, cap)) / Double(cap)
    }

    /// Calls `body` with each part that overlaps a block, and with the overlap's range in the block.
    private static func forEachPart(
        _ parts: [Part],
        of block: Range<Int>,
        _ body: (_ part: Int, _ start: Int, _ end: Int) -> Void
    ) {
        // Parts are in order, so bisection finds the first one that ends after the block's start.
        var (low, high) = (0, parts.count)
        while low < high {
            let middle = (low + high) / 2
            if parts[middle].range.upperBound > block.lowerBound { high = middle } else { low = middle + 1 }
        }
        while low < parts.count, parts[low].range.lowerBound < block.upperBound {
            let common = parts[low].range.clamped(to: block)
            body(low, common.lowerBound - block.lowerBound, common.upperBound - block.lowerBound)
            low += 1
        }
    }

    /// The factor of each part.
    ///
    /// Blocks run in parallel; their measures are integers, so the order of addition does not matter.
    private static func shrinkFactors(
        of file: UpdateFile,
        _ update: SpooledUpdate,
        weight: Double,
        grid: Grid,
        blockElementCount: Int
    ) throws(AggregationError) -> [Double] {
        let parts = grid.parts
        let totals = Mutex([UInt128](repeating: 0, count: parts.count))
        try BlockFold.blocks(count: file.layout.parameterCount, size: blockElementCount) {
            (range, thread) throws(AggregationError) in
            try quantize(file, update, range, weight, grid, thread)
            let integers = thread.sums
            forEachPart(parts, of: range) { part, start, end in
                var sum: UInt128 = 0
                switch grid.measure {
                case .squares:
                    for index in start..<end {
                        let magnitude = UInt128(integers[index].magnitude)
                        sum += magnitude * magnitude
                    }
                case .magnitudes: for index in start..<end { sum += UInt128(integers[index].magnitude) }
                }
                let found = sum
                totals.withLock { $0[part] += found }
            }
        }
        return zip(parts, totals.withLock { $0 }).map { $0.shrinkFactor($1) }
    }

    /// Rounds a block to the grid, into the thread's `sums`.
    private static func quantize(
        _ file: UpdateFile,
        _ update: SpooledUpdate,
        _ range: Range<Int>,
        _ weight: Double,
        _ grid: Grid,
        _ thread: BlockFold.Thread
    ) throws(AggregationError) {
        let values = UnsafeMutableBufferPointer(rebasing: thread.values[0..<range.count])
        try BlockFold.reading(update.path) {
            guard let base = values.baseAddress else { return }
            try file.read(range, into: base, thread.scratch)
        }
        if let index = values.firstIndex(where: { !$0.isFinite }) {
            throw .valueOutOfRange(index: range.lowerBound + index, bound: .infinity)
        }
        grid.quantizeBlock(UnsafeBufferPointer(values), weight, thread.sums)
    }
}
