/// The lower median of a cohort: a value of one of its members, which at least half of them do not exceed.
///
/// A bound that is a multiple of it follows the honest majority: fewer than half of a cohort cannot move it beyond the values of
/// the others. It does not depend on the order of the values.
package enum CohortMedian {
    /// The lower median; `nil` if there are no values.
    package static func lower<Value: Comparable>(_ values: [Value]) -> Value? {
        values.isEmpty ? nil : values.sorted()[(values.count - 1) / 2]
    }

    /// The lower median of the positive values, so that members with empty updates do not make the bound of the others 0.
    package static func lowerOfPositive(_ values: [Double]) -> Double? { lower(values.filter { $0 > 0 }) }
}
