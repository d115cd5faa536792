import Synchronization
package import Tensors
import UpdateCompression

/// L2 norms of whole updates.
package enum UpdateNorms {
    /// The squared norm of each update's decoded values, in one pass over each file, files in parallel.
    ///
    /// Admission runs the same `UpdateFile.check`, so a norm that was kept from there has the same bits.
    ///
    /// - Parameters:
    ///   - updates: Files for the layout.
    ///   - layout: The model's layout.
    ///   - valueBound: Largest absolute value of one coordinate, in parameter units.
    /// - Returns: Shape `[count]`, parameter units squared, in the order of the updates.
    /// - Throws: ``AggregationError``.
    package static func squared(
        of updates: [SpooledUpdate],
        layout: ParameterLayout,
        valueBound: Double
    ) throws(AggregationError) -> [Double] {
        let norms = Mutex([Double](repeating: 0, count: updates.count))
        try Parallel.blocks(of: updates.count, size: 1) { (range) throws(AggregationError) in
            for index in range {
                let norm = try squared(updates[index], layout: layout, valueBound: valueBound)
                norms.withLock { $0[index] = norm }
            }
        }
        return norms.withLock { $0 }
    }

    private static func squared(
        _ update: SpooledUpdate,
        layout: ParameterLayout,
        valueBound: Double
    ) throws(AggregationError) -> Double {
        let file = try BlockFold.open(update, layout: layout)
        do {
            return try file.check(bound: valueBound)
        } catch {
            if let place = (error as? UpdateFormatError)?.index {
                throw .valueOutOfRange(index: place, bound: valueBound)
            }
            throw .init(reading: update.path, error)
        }
    }
}
