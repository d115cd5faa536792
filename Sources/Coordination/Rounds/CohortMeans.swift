import Aggregation
import WireFormat

/// Means over a cohort of what its clients measured, in which no client counts for much more than the others.
///
/// A client's weight in a rate is what the rate is over (targets, or examples), and its value is its own rate. Where the run has
/// an `example_cap`, the weight is cut at that number and at ``CohortBound/defaultMultiple`` times the cohort's lower median
/// weight (or the multiple that `example_cap` names), and a value that is no share of a whole is cut at the same multiple of the
/// lower median of the magnitudes other than 0. A share is at most 1, whatever the run has. What is not cut is added as it was sent: without cuts the mean is that of all examples.
///
/// Contributions are rounded to the grid 2⁻²⁰ and added as integers: the means do not depend on the order of the clients.
struct CohortMeans {
    /// The means, by the rate's name.
    private(set) var rates: [String: Double] = [:]
    /// Clients of which something was cut.
    private(set) var cappedCount = 0

    private static let scale = 0x1p20

    /// Makes the means of a cohort's sums.
    ///
    /// - Parameters:
    ///   - clients: Each client's sums, which ``MetricSums/admits(_:_:)``, and the examples that it says they are over.
    ///   - cap: The run's `example_cap`.
    init(of clients: [(sums: [String: Double], exampleCount: Int)], cap: CohortBound) {
        let fractions = clients.map { MetricSums.fractions($0.sums, exampleCount: $0.exampleCount) }
        var capped: Set<Int> = []
        for name in Set(fractions.flatMap(\.keys)) {
            let members = fractions.indices.filter { fractions[$0][name] != nil }
            let values = members.compactMap { fractions[$0][name] }
            let limits = Self.limits(values, isShare: MetricSums.shares.contains(name), cap: cap)
            var (part, whole) = (Int128(0), Int128(0))
            for (member, value) in zip(members, values) {
                let rate = value.part / value.whole
                let weight = min(value.whole, limits.weight)
                if weight == value.whole && abs(rate) <= limits.value {
                    part += Self.units(value.part)
                } else {
                    capped.insert(member)
                    part += Self.units(max(-limits.value, min(limits.value, rate)) * weight)
                }
                whole += Self.units(weight)
            }
            if whole > 0 { rates[name] = Double(part) / Double(whole) }
        }
        cappedCount = capped.count
    }

    private static func limits(
        _ values: [(part: Double, whole: Double)],
        isShare: Bool,
        cap: CohortBound
    ) -> (weight: Double, value: Double) {
        let multiple: Double
        switch cap {
        case .off: return (.infinity, isShare ? 1 : .infinity)
        case .timesMedian(let given): multiple = given
        case .value: multiple = CohortBound.defaultMultiple
        }
        let weight = CohortMedian.lower(values.map(\.whole)).map { $0 * multiple } ?? .infinity
        let value = CohortMedian.lowerOfPositive(values.map { abs($0.part / $0.whole) }).map { $0 * multiple }
        return (min(weight, cap.number ?? .infinity), isShare ? 1 : value ?? .infinity)
    }

    /// At most 2⁶⁰ grid units: sums are at most 2⁴⁰.
    private static func units(_ value: Double) -> Int128 {
        Int128(max(-0x1p80, min(0x1p80, value * scale)).rounded(.toNearestOrEven))
    }
}
