import Synchronization
public import Tensors

/// The example-weighted mean of updates by exact integer addition: `Σ nₖ Δₖ / Σ nₖ`.
///
/// Each value is rounded to the grid 2⁻³⁰ and multiplied by its integer weight; sums of integers do not depend on order,
/// so the mean is the same to the bit whatever the order of arrival, the block size or the number of threads. Memory is
/// one sum per parameter and one block per thread, whatever the number of updates. Source of FedAvg: McMahan et al. 2017,
/// arXiv:1602.05629, Algorithm 1.
public enum FixedPointMean {
    /// The grid's step.
    public static let step = 0x1p-30

    /// Averages updates.
    ///
    /// - Parameters:
    ///   - updates: Files with the same layout, weights of 1 or more.
    ///   - layout: The model's layout.
    ///   - valueBound: Largest absolute value of one coordinate.
    ///   - blockElementCount: Parameters a task reads at a time.
    /// - Returns: Shape `[parameterCount]`, the mean in parameter units.
    /// - Throws: ``AggregationError``.
    public static func mean(
        of updates: [SpooledUpdate],
        layout: ParameterLayout,
        valueBound: Double,
        blockElementCount: Int = 1 << 16
    ) throws(AggregationError) -> [Double] {
        guard !updates.isEmpty else { throw .noUpdates }
        var totalWeight = 0
        for update in updates {
            precondition(update.weight >= 1, "weights must be positive")
            totalWeight += update.weight
        }
        guard valueBound / step * Double(totalWeight) < 0x1p62 else {
            throw .sumTooLarge(bound: valueBound, totalWeight: totalWeight)
        }
        let denominator = Double(totalWeight)
        return try BlockFold.fold(updates, layout: layout, blockElementCount: blockElementCount) {
            (sums: inout [Int64], values, update, start) throws(AggregationError) in
            let weight = Int64(update.weight)
            for index in 0..<sums.count {
                let value = Double(values[index])
                guard abs(value) <= valueBound else { throw .valueOutOfRange(index: start + index, bound: valueBound) }
                sums[index] += Int64((value / step).rounded(.toNearestOrEven)) * weight
            }
        }.map { Double($0) * step / denominator }
    }
}

/// Sums updates block by block, blocks in parallel, without ever holding a whole update.
package enum BlockFold {
    /// Folds every update into integer sums.
    ///
    /// - Parameters:
    ///   - updates: Files with the model's layout.
    ///   - layout: The model's layout.
    ///   - blockElementCount: Parameters a task reads at a time.
    ///   - add: Adds one update's block, whose first coordinate is given, into the sums.
    /// - Returns: Shape `[parameterCount]`.
    /// - Throws: ``AggregationError``.
    package static func fold(
        _ updates: [SpooledUpdate],
        layout: ParameterLayout,
        blockElementCount: Int,
        add: @escaping @Sendable (inout [Int64], [Float], SpooledUpdate, Int) throws(AggregationError) -> Void
    ) throws(AggregationError) -> [Int64] {
        for update in updates {
            let file = try open(update)
            guard file.layout == layout else { throw .layoutMismatch(path: update.path) }
        }
        let count = layout.parameterCount
        let blockCount = (count + blockElementCount - 1) / blockElementCount
        let results = Mutex<[Int: Result<[Int64], AggregationError>]>([:])
        Parallel.forEach(count: blockCount) { block in
            let range = (block * blockElementCount)..<min(count, (block + 1) * blockElementCount)
            let result = Result { () throws(AggregationError) in
                var sums = [Int64](repeating: 0, count: range.count)
                var values = [Float](repeating: 0, count: range.count)
                for update in updates {
                    let file = try open(update)
                    try read(file, range, into: &values, path: update.path)
                    try add(&sums, values, update, range.lowerBound)
                }
                return sums
            }
            results.withLock { $0[block] = result }
        }
        let blocks = results.withLock { $0 }
        var sums: [Int64] = []
        sums.reserveCapacity(count)
        for block in 0..<blockCount {
            guard let result = blocks[block] else { continue }
            sums += try result.get()
        }
        return sums
    }

    /// Reads a block, with the file's name in the error.
    package static func read(
        _ file: SafetensorsFile,
        _ range: Range<Int>,
        into values: inout [Float],
        path: String
    ) throws(AggregationError) {
        do {
            try file.read(range, into: &values)
        } catch {
            throw .unreadable(path: path, reason: error.description)
        }
    }

    package static func open(_ update: SpooledUpdate) throws(AggregationError) -> SafetensorsFile {
        do {
            return try SafetensorsFile(path: update.path)
        } catch {
            throw .unreadable(path: update.path, reason: error.description)
        }
    }
}
