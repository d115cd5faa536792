import WireFormat

/// How many clients at work are in which state, kept as they change: a view of the open round counts nobody.
struct LiveCounts: Equatable, Sendable {
    private var training: [AssignmentState: Int] = [:]
    private var measuring: [AssignmentState: Int] = [:]

    /// Takes an assignment's change.
    ///
    /// - Parameters:
    ///   - before: What was counted of it; `nil` for a new one.
    ///   - after: What it is now.
    mutating func note(_ before: AssignmentRecord?, _ after: AssignmentRecord) {
        if let before { count(before, by: -1) }
        count(after, by: 1)
    }

    /// Counts by state of those that train, or that measure; states without anybody are left out.
    func shown(measuring isEvaluation: Bool) -> [String: Int] {
        let counts = isEvaluation ? measuring : training
        return Dictionary(uniqueKeysWithValues: counts.lazy.filter { $0.value > 0 }.map { ($0.key.rawValue, $0.value) })
    }

    private mutating func count(_ record: AssignmentRecord, by change: Int) {
        guard record.state.isLive else { return }
        if record.isEvaluation {
            measuring[record.state, default: 0] += change
        } else {
            training[record.state, default: 0] += change
        }
    }
}
