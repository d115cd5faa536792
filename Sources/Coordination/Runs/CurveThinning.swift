/// Curves with fewer points that look the same.
enum CurveThinning {
    /// At most `limit` points (4 or more) of those given by growing x: first, lowest, highest, last of each stretch.
    ///
    /// The first and the last point, the lowest and the highest value are always among them. Takes O(n) time.
    static func thin(_ points: [(x: Int, y: Double)], to limit: Int) -> [(x: Int, y: Double)] {
        precondition(limit >= 4, "a stretch has up to four points")
        guard points.count > limit else { return points }
        let stretches = limit / 4
        var kept: [(x: Int, y: Double)] = []
        kept.reserveCapacity(limit)
        for stretch in 0..<stretches {
            let range = points.count * stretch / stretches..<points.count * (stretch + 1) / stretches
            var (low, high) = (range.lowerBound, range.lowerBound)
            for index in range {
                if points[index].y < points[low].y { low = index }
                if points[index].y > points[high].y { high = index }
            }
            var previous = -1
            for index in [range.lowerBound, min(low, high), max(low, high), range.upperBound - 1] where index > previous
            {
                kept.append(points[index])
                previous = index
            }
        }
        return kept
    }
}
