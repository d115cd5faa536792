/// How often each client was given work in a run.
///
/// A reference, so that a copy of a ``RunState`` shares it: one that a transaction held on to made the next assignment
/// copy the entries of all clients, two milliseconds for a hundred thousand of them.
final class ParticipationTable: @unchecked Sendable {
    // SAFETY: touched by the coordinator only, as the run that owns it.

    /// How often for training, and in which round it was last.
    private(set) var trainings: [String: Int] = [:]
    private(set) var lastRounds: [String: Int] = [:]
    /// How often to evaluate.
    private(set) var evaluations: [String: Int] = [:]

    /// Counts one more assignment.
    func note(_ record: AssignmentRecord) {
        guard record.round > 0 else {
            evaluations[record.clientId, default: 0] += 1
            return
        }
        trainings[record.clientId, default: 0] += 1
        lastRounds[record.clientId] = max(lastRounds[record.clientId] ?? 0, record.round)
    }
}
