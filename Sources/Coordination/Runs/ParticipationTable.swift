/// How often each client was given work in a run.
///
/// A reference, so that a copy of a ``RunState`` shares it: one that a transaction held on to made the next assignment
/// copy the entries of all clients, two milliseconds for a hundred thousand of them.
final class ParticipationTable: @unchecked Sendable {
    // SAFETY: touched by the coordinator only, as the run that owns it.

    /// How often for training, and in which round it was last.
    private(set) var trainings: [String: Int] = [:]
    private(set) var lastRounds: [String: Int] = [:]
    /// How many clients had work for training so often.
    private(set) var histogram: [Int: Int] = [:]
    /// How often to evaluate.
    private(set) var evaluations: [String: Int] = [:]

    /// Takes what is stored of a client.
    func set(_ record: ParticipationRecord) {
        if record.trainings > 0 {
            trainings[record.clientId] = record.trainings
            lastRounds[record.clientId] = record.lastRound
            histogram[record.trainings, default: 0] += 1
        }
        if record.evaluations > 0 { evaluations[record.clientId] = record.evaluations }
    }

    /// Counts one more assignment; further turns in the same attempt are the same participation.
    func note(_ record: AssignmentRecord) {
        guard record.turn == 1 else { return }
        guard record.round > 0 else {
            evaluations[record.clientId, default: 0] += 1
            return
        }
        let before = trainings[record.clientId] ?? 0
        trainings[record.clientId] = before + 1
        if let left = histogram[before] { histogram[before] = left > 1 ? left - 1 : nil }
        histogram[before + 1, default: 0] += 1
        lastRounds[record.clientId] = max(lastRounds[record.clientId] ?? 0, record.round)
    }
}
