/// The area under the receiver operating characteristic: the probability that a positive scores above a negative.
public enum ReceiverOperatingCurve {
    /// The exact area; ties count half.
    ///
    /// `nil` if a class is missing.
    ///
    /// - Complexity: O(n log n).
    public static func area(_ scores: [(probability: Double, isPositive: Bool)]) -> Double? {
        let positives = scores.reduce(0) { $0 + ($1.isPositive ? 1 : 0) }
        let negatives = scores.count - positives
        guard positives > 0, negatives > 0 else { return nil }
        let sorted = scores.sorted { $0.probability < $1.probability }
        var (rankSum, index) = (0.0, 0)
        while index < sorted.count {
            var end = index
            while end < sorted.count && sorted[end].probability == sorted[index].probability { end += 1 }
            let rank = Double(index + end + 1) / 2
            rankSum += rank * Double(sorted[index..<end].reduce(0) { $0 + ($1.isPositive ? 1 : 0) })
            index = end
        }
        return (rankSum - Double(positives * (positives + 1)) / 2) / Double(positives * negatives)
    }
}

/// Scores of both classes in 200 bins.
///
/// Histograms of sites add up, and the area of the sum is the global one up to the width of a bin.
public struct ScoreHistogram: Equatable, Sendable {
    /// The number of bins over `[0, 1]`.
    public static let binCount = 200
    /// Positives by bin.
    public private(set) var positives = [Int](repeating: 0, count: Self.binCount)
    /// Negatives by bin.
    public private(set) var negatives = [Int](repeating: 0, count: Self.binCount)

    /// An empty histogram.
    public init() {}

    /// Counts scores.
    public init(_ scores: [(probability: Double, isPositive: Bool)]) {
        for score in scores {
            let bin = max(0, min(Self.binCount - 1, Int(score.probability * Double(Self.binCount))))
            if score.isPositive { positives[bin] += 1 } else { negatives[bin] += 1 }
        }
    }

    /// Adds the counts of each bin.
    public static func += (left: inout Self, right: Self) {
        for bin in 0..<binCount {
            left.positives[bin] += right.positives[bin]
            left.negatives[bin] += right.negatives[bin]
        }
    }

    /// The area; scores in one bin are ties.
    ///
    /// `nil` if a class is missing.
    public var area: Double? {
        let scores = (0..<Self.binCount).flatMap { bin in
            [(bin, true, positives[bin]), (bin, false, negatives[bin])]
        }
        let (all, others) = (positives.reduce(0, +), negatives.reduce(0, +))
        guard all > 0, others > 0 else { return nil }
        var (below, area) = (0.0, 0.0)
        for (bin, isPositive, count) in scores where isPositive {
            area += Double(count) * (below + Double(negatives[bin]) / 2)
            below += Double(negatives[bin])
        }
        return area / (Double(all) * Double(others))
    }
}
