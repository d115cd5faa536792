import CKernels
public import Tensors
import UpdateCompression

/// The example-weighted mean of updates by exact integer addition: `Σ nₖ Δₖ / Σ nₖ`.
///
/// Each value is rounded to the grid 2⁻³⁰ and multiplied by its integer weight, into sums of 64 bits, or of 128 bits if the weights
/// could leave 64. Sums of integers do not depend on order, so the mean has the same bits for every order of arrival, block size
/// and number of threads. Memory is a few blocks for each thread, whatever the number of updates and the size of the model. Source
/// of FedAvg: McMahan et al. 2017, arXiv:1602.05629, Algorithm 1.
public enum FixedPointMean {
    /// The grid's step, in parameter units.
    public static let step = 0x1p-30
    /// The largest bound: beyond it the kernel would not round values exactly.
    public static let largestValueBound = 0x1p20
    /// Parameters of a block: large enough that reading a cached file costs little more than the copy.
    ///
    /// Measured, the sum from files is a tenth slower with half of it and a third slower with a quarter, though a block's sums and the
    /// pieces of eight updates would then fit a core's second-level cache.
    public static let defaultBlockElementCount = 1 << 15

    /// Receives the means of a block, in parameter units, and may change that memory; called from several threads, once for each block.
    public typealias Receiver = @Sendable (_ range: Range<Int>, _ means: UnsafeMutablePointer<Double>) -> Void

    /// Averages updates in any encodings.
    ///
    /// - Parameters:
    ///   - updates: Files for the same layout, weights of 1 or more.
    ///   - layout: The model's layout.
    ///   - valueBound: Largest absolute value of one coordinate, at most ``largestValueBound``.
    ///   - blockElementCount: Parameters a task sums at a time.
    /// - Returns: Shape `[parameterCount]`, the mean in parameter units.
    /// - Throws: ``AggregationError``.
    public static func mean(
        of updates: [SpooledUpdate],
        layout: ParameterLayout,
        valueBound: Double,
        blockElementCount: Int = defaultBlockElementCount
    ) throws(AggregationError) -> [Double] {
        try collected(count: layout.parameterCount) { receiver throws(AggregationError) in
            try means(
                of: updates,
                layout: layout,
                valueBound: valueBound,
                blockElementCount: blockElementCount,
                to: receiver
            )
        }
    }

    /// Averages updates and passes the means on block by block, without a vector as long as the model.
    ///
    /// - Parameters:
    ///   - updates: Files for the same layout, weights of 1 or more.
    ///   - layout: The model's layout.
    ///   - valueBound: Largest absolute value of one coordinate, at most ``largestValueBound``.
    ///   - blockElementCount: Parameters a task sums at a time.
    ///   - receiver: Receives each block's means. After an error the blocks that it has received are of no use.
    /// - Throws: ``AggregationError``.
    public static func means(
        of updates: [SpooledUpdate],
        layout: ParameterLayout,
        valueBound: Double,
        blockElementCount: Int = defaultBlockElementCount,
        to receiver: @escaping Receiver
    ) throws(AggregationError) {
        let (totalWeight, isWide) = try checkedWeight(updates.map(\.weight), valueBound: valueBound)
        let opened = try BlockFold.open(updates, layout: layout)
        let dense = opened.filter { $0.file.encoding != .topk }
        let sparse = opened.filter { $0.file.encoding == .topk }
        try BlockFold.blocks(count: layout.parameterCount, size: blockElementCount) {
            (range, thread) throws(AggregationError) in
            clear(thread, range.count, isWide: isWide)
            var start = 0
            while start < dense.count {
                let end = min(dense.count, start + UpdateScratch.slotCount)
                try add(dense[start..<end], range, valueBound: valueBound, thread, isWide: isWide)
                start = end
            }
            for (file, update) in sparse {
                let isGood = try BlockFold.reading(update.path) {
                    var isGood = true
                    try UpdateFile.forEachPiece(range, of: [file]) { piece, offset in
                        let added =
                            isWide
                            ? try file.addSparse(
                                piece,
                                weight: Int64(update.weight),
                                factor: update.factor,
                                bound: valueBound,
                                scale: 1 / step,
                                into: thread.wideSums + offset,
                                thread.scratch
                            )
                            : try file.addSparse(
                                piece,
                                weight: Int64(update.weight),
                                factor: update.factor,
                                bound: valueBound,
                                scale: 1 / step,
                                into: thread.sums + offset,
                                thread.scratch
                            )
                        isGood = isGood && added
                    }
                    return isGood
                }
                guard isGood else { throw try wrongValue(file, update, range, valueBound) }
            }
            finish(range, thread, totalWeight, isWide: isWide, receiver)
        }
    }

    /// Adds the block of up to eight updates in one pass.
    private static func add(
        _ updates: ArraySlice<BlockFold.Opened>,
        _ range: Range<Int>,
        valueBound: Double,
        _ thread: BlockFold.Thread,
        isWide: Bool
    ) throws(AggregationError) {
        var failure: AggregationError?
        let members = Array(updates)
        UpdateFile.forEachPiece(range, of: members.map(\.file)) { piece, offset in
            guard failure == nil else { return }
            do throws(AggregationError) {
                var rows: [martlet_row] = []
                rows.reserveCapacity(members.count)
                for (slot, member) in members.enumerated() {
                    let row = try BlockFold.reading(member.update.path) {
                        try member.file.row(
                            piece,
                            weight: Int64(member.update.weight),
                            factor: member.update.factor,
                            slot: slot,
                            thread.scratch
                        )
                    }
                    if let row { rows.append(row) }
                }
                let wrong = fold(rows, piece.count, thread, offset, valueBound: valueBound, isWide: isWide)
                guard wrong < 0 else {
                    throw try wrongValue(members[wrong].file, members[wrong].update, range, valueBound)
                }
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
    }

    /// Adds rows to a thread's sums from one place on.
    ///
    /// - Returns: The number of a row with a wrong value, or -1.
    private static func fold(
        _ rows: [martlet_row],
        _ count: Int,
        _ thread: BlockFold.Thread,
        _ offset: Int,
        valueBound: Double,
        isWide: Bool
    ) -> Int {
        isWide
            ? Int(martlet_fold_wide(thread.wideSums + offset, rows, rows.count, count, 1 / step, valueBound))
            : Int(martlet_fold(thread.sums + offset, rows, rows.count, count, 1 / step, valueBound))
    }

    private static func clear(_ thread: BlockFold.Thread, _ count: Int, isWide: Bool) {
        if isWide {
            thread.wideSums.update(repeating: 0, count: count)
        } else {
            thread.sums.update(repeating: 0, count: count)
        }
    }

    /// The error for the first wrong value of an update in a block.
    private static func wrongValue(
        _ file: UpdateFile,
        _ update: SpooledUpdate,
        _ range: Range<Int>,
        _ bound: Double
    ) throws(AggregationError) -> AggregationError {
        var values = [Float](repeating: 0, count: range.count)
        try BlockFold.read(file, range, into: &values, path: update.path)
        let index = values.firstIndex { !(Double(abs($0)) <= bound) } ?? 0
        return .valueOutOfRange(index: range.lowerBound + index, bound: bound)
    }

    // MARK: - Updates in memory

    /// Averages updates that are in memory.
    ///
    /// - Parameters:
    ///   - updates: Each with `count` values, and their weights.
    ///   - count: The number of parameters.
    ///   - valueBound: Largest absolute value of one coordinate.
    ///   - blockElementCount: Parameters a task sums at a time.
    ///   - receiver: Is called with each block's means.
    /// - Throws: ``AggregationError``.
    package static func means(
        of updates: [(values: UnsafePointer<Float>, weight: Int)],
        count: Int,
        valueBound: Double,
        blockElementCount: Int = defaultBlockElementCount,
        to receiver: @escaping Receiver
    ) throws(AggregationError) {
        let (totalWeight, isWide) = try checkedWeight(updates.map(\.weight), valueBound: valueBound)
        let inputs = UncheckedPointers(updates)
        try BlockFold.blocks(count: count, size: blockElementCount) { (range, thread) throws(AggregationError) in
            clear(thread, range.count, isWide: isWide)
            let rows = inputs.updates.map { values, weight in
                martlet_row(
                    data: values + range.lowerBound,
                    scales: nil,
                    offset: 0,
                    weight: Int64(weight),
                    kind: MARTLET_F32,
                    factor: 1
                )
            }
            let wrong = fold(rows, range.count, thread, 0, valueBound: valueBound, isWide: isWide)
            guard wrong < 0 else {
                let values = inputs.updates[wrong].values
                let index = range.first { !(Double(abs(values[$0])) <= valueBound) } ?? range.lowerBound
                throw .valueOutOfRange(index: index, bound: valueBound)
            }
            finish(range, thread, totalWeight, isWide: isWide, receiver)
        }
    }

    /// Averages updates that are in memory.
    package static func mean(
        of updates: [(values: UnsafePointer<Float>, weight: Int)],
        count: Int,
        valueBound: Double,
        blockElementCount: Int = defaultBlockElementCount
    ) throws(AggregationError) -> [Double] {
        try collected(count: count) { receiver throws(AggregationError) in
            try means(
                of: updates,
                count: count,
                valueBound: valueBound,
                blockElementCount: blockElementCount,
                to: receiver
            )
        }
    }

    private struct UncheckedPointers: @unchecked Sendable {
        // SAFETY: only read, by threads that end before the caller's pointers do.
        let updates: [(values: UnsafePointer<Float>, weight: Int)]
        init(_ updates: [(values: UnsafePointer<Float>, weight: Int)]) { self.updates = updates }
    }

    // MARK: - Both

    /// Turns a block's sums into means, in the memory of the 64-bit sums, and passes them to the receiver.
    private static func finish(
        _ range: Range<Int>,
        _ thread: BlockFold.Thread,
        _ totalWeight: Double,
        isWide: Bool,
        _ receiver: Receiver
    ) {
        UnsafeMutableRawPointer(thread.sums).withMemoryRebound(to: Double.self, capacity: range.count) { means in
            if isWide {
                martlet_wide_to_means(means, thread.wideSums, range.count, step, totalWeight)
            } else {
                martlet_sums_to_means(means, thread.sums, range.count, step, totalWeight)
            }
            receiver(range, means)
        }
    }

    /// Whether weighted sums of values up to a bound fit 64 bits, which is faster; the means have the same bits.
    static func fits64Bits(valueBound: Double, totalWeight: Double) -> Bool { valueBound / step * totalWeight < 0x1p62 }

    /// The sum of the weights, and whether sums need 128 bits.
    ///
    /// No run leaves 128 bits: a bound of 2²⁰ on the grid is 2⁵⁰, a weight is at most 2⁴⁰, and there are no 2³⁶ clients.
    ///
    /// - Throws: ``AggregationError/noUpdates``, ``AggregationError/sumTooLarge(bound:totalWeight:)``.
    static func checkedWeight(
        _ weights: [Int],
        valueBound: Double
    ) throws(AggregationError) -> (total: Double, isWide: Bool) {
        guard !weights.isEmpty else { throw .noUpdates }
        var totalWeight: Int128 = 0
        for weight in weights {
            precondition(weight >= 1, "weights must be positive")
            totalWeight += Int128(weight)
        }
        let total = Double(totalWeight)
        guard valueBound <= largestValueBound, valueBound / step * total < 0x1p126 else {
            throw .sumTooLarge(bound: valueBound, totalWeight: Int(exactly: totalWeight) ?? .max)
        }
        return (total, !fits64Bits(valueBound: valueBound, totalWeight: total))
    }

    /// Collects all blocks in one vector.
    private static func collected(
        count: Int,
        _ fill: (@escaping Receiver) throws(AggregationError) -> Void
    ) throws(AggregationError) -> [Double] {
        var failure: AggregationError?
        let means = [Double](unsafeUninitializedCapacity: count) { buffer, initialized in
            guard let base = buffer.baseAddress else { return }
            let target = UncheckedTarget(base)
            do throws(AggregationError) {
                try fill { range, means in
                    (target.pointer + range.lowerBound).initialize(from: means, count: range.count)
                }
                initialized = count
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return means
    }
}

/// Memory that threads fill block by block.
struct UncheckedTarget<Element>: @unchecked Sendable {
    // SAFETY: every thread writes other blocks, and all end before the owner goes on.
    let pointer: UnsafeMutablePointer<Element>
    init(_ pointer: UnsafeMutablePointer<Element>) { self.pointer = pointer }
}
