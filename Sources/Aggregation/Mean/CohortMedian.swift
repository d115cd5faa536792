/// The lower median of a cohort: a value that one of its members has, and that half of them at least do not exceed.
///
/// A bound that is a multiple of it follows the honest majority: fewer than half of a cohort cannot move it beyond the values of
/// the others. It is the same in whatever order the values come.
package enum CohortMedian {
    /// The lower median; `nil` of nothing.
    package static func lower<Value: Comparable>(_ values: [Value]) -> Value? {
        values.isEmpty ? nil : values.sorted()[(values.count - 1) / 2]
    }

    /// The lower median of the values other than 0: members that have nothing to say do not make the bound of the others 0.
    package static func lowerOfPositive(_ values: [Double]) -> Double? { lower(values.filter { $0 > 0 }) }
}
