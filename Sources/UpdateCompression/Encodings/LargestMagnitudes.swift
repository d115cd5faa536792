/// Finds the largest magnitudes in linear time, by a radix selection.
///
/// Magnitudes of floats are ordered as their bits are. So a histogram of the upper 16 bits, and then one of the lower 15 bits, finds
/// the smallest magnitude that is kept.
enum LargestMagnitudes {
    /// The positions of the largest magnitudes, ascending; among equal magnitudes the first positions are kept.
    ///
    /// - Parameters:
    ///   - count: How many positions, from 0 to `values.count`.
    ///   - values: Every value finite.
    /// - Returns: Indices of the slice, shape `[count]`.
    /// - Complexity: O(n).
    static func positions(of count: Int, in values: ArraySlice<Float>) -> [Int] {
        precondition(count >= 0 && count <= values.count, "more positions than values")
        guard count > 0 else { return [] }
        func magnitude(_ value: Float) -> Int { Int(value.bitPattern & 0x7FFF_FFFF) }
        var upper = [Int](repeating: 0, count: 1 << 16)
        for value in values { upper[magnitude(value) >> 15] += 1 }
        let (high, above) = bucket(upper, holding: count)
        var lower = [Int](repeating: 0, count: 1 << 15)
        for value in values where magnitude(value) >> 15 == high { lower[magnitude(value) & 0x7FFF] += 1 }
        let (low, aboveThreshold) = bucket(lower, holding: count - above)
        let threshold = high << 15 | low
        // How many values that equal the threshold are kept.
        var ties = count - above - aboveThreshold
        var kept: [Int] = []
        kept.reserveCapacity(count)
        for index in values.indices {
            let size = magnitude(values[index])
            if size > threshold {
                kept.append(index)
            } else if size == threshold && ties > 0 {
                kept.append(index)
                ties -= 1
            }
        }
        return kept
    }

    /// The bucket that holds the value of this rank, counted from the largest, and how many values are in the buckets above.
    private static func bucket(_ counts: [Int], holding rank: Int) -> (bucket: Int, above: Int) {
        var above = 0
        for bucket in counts.indices.reversed() {
            if above + counts[bucket] >= rank { return (bucket, above) }
            above += counts[bucket]
        }
        return (0, above)
    }
}
