import Synchronization
public import Tensors
import UpdateCompression

/// The sum of clipped updates on the noise grid: what noise is added to (mode `central`).
///
/// Every update's L2 norm on the grid is checked exactly in integers here, whatever its client claimed to have clipped;
/// one that is over the bound is scaled under it. Two passes over each file: norm, then sum.
public enum BoundedSum {
    /// The grid, by its two operations.
    public struct Grid: Sendable {
        /// Rounds a block of values, each first multiplied by a weight from 0 to 1, to grid units.
        public var quantizeBlock:
            @Sendable (_ values: UnsafeBufferPointer<Float>, _ weight: Double, _ result: UnsafeMutablePointer<Int64>)
                -> Void
        /// The factor under the bound for an exact sum of squares; 1 when it is within it.
        public var shrinkFactor: @Sendable (UInt128) -> Double

        /// Names the operations.
        public init(
            quantizeBlock:
                @escaping @Sendable (UnsafeBufferPointer<Float>, Double, UnsafeMutablePointer<Int64>) -> Void,
            shrinkFactor: @escaping @Sendable (UInt128) -> Double
        ) {
            self.quantizeBlock = quantizeBlock
            self.shrinkFactor = shrinkFactor
        }

        /// Names the operations, the first for one value.
        public init(
            quantize: @escaping @Sendable (Float, Double) -> Int64,
            shrinkFactor: @escaping @Sendable (UInt128) -> Double
        ) {
            self.init(
                quantizeBlock: { values, weight, result in
                    for index in 0..<values.count { result[index] = quantize(values[index], weight) }
                },
                shrinkFactor: shrinkFactor
            )
        }
    }

    /// Sums updates.
    ///
    /// - Parameters:
    ///   - updates: Files for the model's layout; a weight of at most `weightCap`.
    ///   - layout: The model's layout.
    ///   - weightCap: The weight that counts as 1.
    ///   - grid: The noise grid.
    ///   - blockElementCount: Parameters a task sums at a time.
    /// - Returns: Shape `[parameterCount]`, grid units.
    /// - Throws: ``AggregationError``.
    public static func sum(
        of updates: [SpooledUpdate],
        layout: ParameterLayout,
        weightCap: Int,
        grid: Grid,
        blockElementCount: Int = FixedPointMean.defaultBlockElementCount
    ) throws(AggregationError) -> [Int64] {
        var factors: [String: Double] = [:]
        for update in updates {
            factors[update.path] = try shrinkFactor(
                of: update,
                layout: layout,
                weight: share(update, weightCap),
                grid: grid,
                blockElementCount: blockElementCount
            )
        }
        let shrink = factors
        var failure: AggregationError?
        let sums = [Int64](unsafeUninitializedCapacity: layout.parameterCount) { buffer, initialized in
            guard let base = buffer.baseAddress else { return }
            do throws(AggregationError) {
                try BlockFold.fold(updates, layout: layout, blockElementCount: blockElementCount, into: base) {
                    (sums, updates, range, scratch) throws(AggregationError) in
                    for (file, update) in updates {
                        let factor = shrink[update.path] ?? 0
                        try withQuantized(file, update, range, share(update, weightCap), grid, scratch) { integers in
                            if factor < 1 {
                                // Truncation toward zero cannot raise the norm.
                                for index in 0..<range.count { sums[index] += Int64(Double(integers[index]) * factor) }
                            } else {
                                for index in 0..<range.count { sums[index] += integers[index] }
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

    /// Whole blocks in parallel, their exact sums of squares added at the end: integers, so in any order.
    private static func shrinkFactor(
        of update: SpooledUpdate,
        layout: ParameterLayout,
        weight: Double,
        grid: Grid,
        blockElementCount: Int
    ) throws(AggregationError) -> Double {
        let file = try BlockFold.open(update, layout: layout)
        let squared = Mutex<UInt128>(0)
        try BlockFold.blocks(count: layout.parameterCount, size: blockElementCount) { range throws(AggregationError) in
            let scratch = UpdateFile.Scratch()
            try withQuantized(file, update, range, weight, grid, scratch) { integers in
                var sum: UInt128 = 0
                for index in 0..<range.count {
                    let magnitude = UInt128(integers[index].magnitude)
                    sum += magnitude * magnitude
                }
                squared.withLock { $0 += sum }
            }
        }
        return grid.shrinkFactor(squared.withLock { $0 })
    }

    private static func withQuantized(
        _ file: UpdateFile,
        _ update: SpooledUpdate,
        _ range: Range<Int>,
        _ weight: Double,
        _ grid: Grid,
        _ scratch: UpdateFile.Scratch,
        _ body: (UnsafeMutablePointer<Int64>) -> Void
    ) throws(AggregationError) {
        let values = UnsafeMutableBufferPointer<Float>.allocate(capacity: range.count)
        defer { values.deallocate() }
        try BlockFold.reading(update.path) {
            guard let base = values.baseAddress else { return }
            try file.read(range, into: base, scratch)
        }
        if let index = values.firstIndex(where: { !$0.isFinite }) {
            throw .valueOutOfRange(index: range.lowerBound + index, bound: .infinity)
        }
        let integers = UnsafeMutablePointer<Int64>.allocate(capacity: range.count)
        defer { integers.deallocate() }
        grid.quantizeBlock(UnsafeBufferPointer(values), weight, integers)
        body(integers)
    }
}
