import WireFormat

/// Work of a private run that has begun; a process that dies of its data would begin it for ever.
struct WorkTries: Codable, Sendable {
    var assignment: String
    /// 0 where it ended with the process alive.
    var count: Int
    var run: String?
    /// How often the process died in the middle of a run's work since that last succeeded.
    var deaths: [String: Int]?

    private static let runLimit = 64

    /// Notes that a private assignment's work begins.
    ///
    /// - Returns: How often the process died in the middle of this run's work, in whichever assignment: one that always dies must not
    ///   do so in every round, which would show. From the third time on not even made-up records are worked on.
    static func begin(_ assignment: Assignment, files: StateFiles) throws -> Int {
        guard assignment.isPrivate else { return 0 }
        let note = try files.readIfWhole(.tries)
        let run = assignment.run.text
        var deaths = note?.deaths ?? [:]
        if let open = note, open.count > 0 {
            // What is still noted as begun did not end.
            let died = open.run ?? run
            deaths[died] = max(open.count, (deaths[died] ?? 0) + 1)
        }
        if deaths.count > runLimit, let first = deaths.keys.filter({ $0 != run }).min() { deaths[first] = nil }
        try files.write(.tries, WorkTries(assignment: assignment.id.text, count: 1, run: run, deaths: deaths))
        return deaths[run] ?? 0
    }

    /// Notes that the work has ended, however, with the process alive; where it was done, earlier deaths are forgotten.
    static func end(_ assignment: Assignment, isDone: Bool, files: StateFiles) {
        guard assignment.isPrivate, var note = (try? files.read(.tries)) ?? nil, note.count > 0 else { return }
        note.count = 0
        if isDone { note.deaths?[assignment.run.text] = nil }
        // Where this fails the next work takes it for a death: then it is done on made-up records once too often.
        try? files.write(.tries, note)
    }
}
