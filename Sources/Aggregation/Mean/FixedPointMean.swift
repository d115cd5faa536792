import CKernels
public import Tensors
import UpdateCompression

/// The example-weighted mean of updates by exact integer addition: `Σ nₖ Δₖ / Σ nₖ`.
///
/// Each value is rounded to the grid 2⁻³⁰ and multiplied by its integer weight; sums of integers do not depend on order,
/// so the mean is the same to the bit whatever the order of arrival, the block size or the number of threads. Memory is
/// one sum per parameter and one block per thread, whatever the number of updates. Source of FedAvg: McMahan et al. 2017,
/// arXiv:1602.05629, Algorithm 1.
public enum FixedPointMean {
    /// The grid's step.
    public static let step = 0x1p-30
    /// Larger bounds would leave the range in which values are rounded exactly.
    public static let largestValueBound = 0x1p20
    /// Sums of a block this large stay in a core's own cache while every update is added.
    public static let defaultBlockElementCount = 1 << 13

    /// Averages updates, whatever their encodings.
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
        let totalWeight = try checkedWeight(updates.map(\.weight), valueBound: valueBound)
        let denominator = Double(totalWeight)
        // While a block's sums are in the cache they become means.
        let finish: BlockFold.Finish = { sums, count in martlet_sums_to_means(sums, count, step, denominator) }
        return try means(count: layout.parameterCount) { sums throws(AggregationError) in
            try BlockFold.fold(
                updates,
                layout: layout,
                blockElementCount: blockElementCount,
                into: sums,
                finish: finish
            ) {
                (sums, updates, range, scratch) throws(AggregationError) in
                try add(updates, range, into: sums, valueBound: valueBound, scratch)
            }
        }
    }

    /// Adds a block of some updates: plain floats four at a time, others one by one.
    private static func add(
        _ updates: [BlockFold.Opened],
        _ range: Range<Int>,
        into sums: UnsafeMutablePointer<Int64>,
        valueBound: Double,
        _ scratch: UpdateFile.Scratch
    ) throws(AggregationError) {
        let plain = updates.filter { $0.file.encoding == .f32 }
        let quadCount = plain.count / 4
        if quadCount > 0 {
            let space = UnsafeMutablePointer<Float>.allocate(capacity: 4 * range.count)
            defer { space.deallocate() }
            for quad in 0..<quadCount {
                let members = plain[(4 * quad)..<(4 * quad + 4)]
                for (row, member) in members.enumerated() {
                    try BlockFold.reading(member.update.path) {
                        try member.file.read(range, into: space + row * range.count, scratch)
                    }
                }
                let rows = (0..<4).map { UnsafePointer(space + $0 * range.count) }
                let weights = members.map { Int64($0.update.weight) }
                let status = martlet_fold4_f32(
                    sums,
                    rows[0],
                    rows[1],
                    rows[2],
                    rows[3],
                    range.count,
                    1 / step,
                    weights,
                    valueBound
                )
                guard status == 0 else { throw try wrongValue(members, range, valueBound) }
            }
        }
        let rest = updates.filter { $0.file.encoding != .f32 } + plain.dropFirst(4 * quadCount)
        for member in rest {
            let isGood = try BlockFold.reading(member.update.path) {
                try member.file.fold(
                    range,
                    into: sums,
                    scale: 1 / step,
                    weight: Int64(member.update.weight),
                    bound: valueBound,
                    scratch
                )
            }
            guard isGood else { throw try wrongValue([member], range, valueBound) }
        }
    }

    /// Names the first wrong value of the updates' blocks.
    private static func wrongValue(
        _ updates: ArraySlice<BlockFold.Opened>,
        _ range: Range<Int>,
        _ valueBound: Double
    ) throws(AggregationError) -> AggregationError {
        for (file, update) in updates {
            if let error = try BlockFold.valueError(file, range, bound: valueBound, path: update.path) { return error }
        }
        return .valueOutOfRange(index: range.lowerBound, bound: valueBound)
    }

    /// Averages updates that are in memory.
    ///
    /// - Parameters:
    ///   - updates: Each with `count` values, and their weights.
    ///   - count: The number of parameters.
    ///   - valueBound: Largest absolute value of one coordinate.
    ///   - blockElementCount: Parameters a task sums at a time.
    /// - Returns: Shape `[count]`, the mean in parameter units.
    /// - Throws: ``AggregationError``.
    package static func mean(
        of updates: [(values: UnsafePointer<Float>, weight: Int)],
        count: Int,
        valueBound: Double,
        blockElementCount: Int = defaultBlockElementCount
    ) throws(AggregationError) -> [Double] {
        let totalWeight = try checkedWeight(updates.map(\.weight), valueBound: valueBound)
        let inputs = UncheckedPointers(updates)
        return try means(count: count) { sums throws(AggregationError) in
            let target = UncheckedSums(sums)
            try BlockFold.blocks(count: count, size: blockElementCount) { range throws(AggregationError) in
                let block = target.pointer + range.lowerBound
                block.update(repeating: 0, count: range.count)
                let quads = inputs.updates.count / 4
                for quad in 0..<quads {
                    let rows = (0..<4).map { inputs.updates[4 * quad + $0].values + range.lowerBound }
                    let weights = (0..<4).map { Int64(inputs.updates[4 * quad + $0].weight) }
                    let status = martlet_fold4_f32(
                        block,
                        rows[0],
                        rows[1],
                        rows[2],
                        rows[3],
                        range.count,
                        1 / step,
                        weights,
                        valueBound
                    )
                    guard status == 0 else {
                        let index = (0..<range.count).first { index in
                            !rows.allSatisfy { Double(abs($0[index])) <= valueBound }
                        }
                        throw .valueOutOfRange(index: range.lowerBound + (index ?? 0), bound: valueBound)
                    }
                }
                for (values, weight) in inputs.updates.dropFirst(4 * quads) {
                    let values = values + range.lowerBound
                    guard martlet_fold_f32(block, values, range.count, 1 / step, Int64(weight), valueBound) == 0 else {
                        let index = (0..<range.count).first { !(Double(abs(values[$0])) <= valueBound) } ?? 0
                        throw .valueOutOfRange(index: range.lowerBound + index, bound: valueBound)
                    }
                }
                martlet_sums_to_means(block, range.count, step, Double(totalWeight))
            }
        }
    }

    private struct UncheckedPointers: @unchecked Sendable {
        // SAFETY: only read, by threads that end before the caller's pointers do.
        let updates: [(values: UnsafePointer<Float>, weight: Int)]
        init(_ updates: [(values: UnsafePointer<Float>, weight: Int)]) { self.updates = updates }
    }

    private static func checkedWeight(_ weights: [Int], valueBound: Double) throws(AggregationError) -> Int {
        guard !weights.isEmpty else { throw .noUpdates }
        var totalWeight = 0
        for weight in weights {
            precondition(weight >= 1, "weights must be positive")
            totalWeight += weight
        }
        guard valueBound <= largestValueBound, valueBound / step * Double(totalWeight) < 0x1p62 else {
            throw .sumTooLarge(bound: valueBound, totalWeight: totalWeight)
        }
        return totalWeight
    }

    /// Means in the memory of the sums: eight bytes a parameter and no more.
    private static func means(
        count: Int,
        _ fill: (UnsafeMutablePointer<Int64>) throws(AggregationError) -> Void
    ) throws(AggregationError) -> [Double] {
        var failure: AggregationError?
        let means = [Double](unsafeUninitializedCapacity: count) { buffer, initialized in
            guard let base = buffer.baseAddress else { return }
            let raw = UnsafeMutableRawPointer(base)
            martlet_prefer_huge_pages(raw, Int64(8 * count))
            let sums = raw.bindMemory(to: Int64.self, capacity: count)
            do throws(AggregationError) {
                try fill(sums)
                raw.bindMemory(to: Double.self, capacity: count)
                initialized = count
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return means
    }
}
