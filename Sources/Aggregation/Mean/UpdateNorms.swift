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
        let results = Mutex<[Result<Double, AggregationError>?]>(Array(repeating: nil, count: updates.count))
        Parallel.forEach(count: updates.count) { index in
            let result = Result { () throws(AggregationError) -> Double in
                let file = try BlockFold.open(updates[index], layout: layout)
                do {
                    return try file.check(bound: valueBound)
                } catch {
                    if let place = (error as? UpdateFormatError)?.index {
                        throw .valueOutOfRange(index: place, bound: valueBound)
                    }
                    throw .init(reading: updates[index].path, error)
                }
            }
            results.withLock { $0[index] = result }
        }
        var values: [Double] = []
        values.reserveCapacity(updates.count)
        for result in results.withLock({ $0 }) {
            guard let result else { preconditionFailure("every update has a result") }
            values.append(try result.get())
        }
        return values
    }
}
