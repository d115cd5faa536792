/// Who has had a part in the open attempt, and who may be given a further turn in it.
///
/// A client whose work ended without an accepted update may try again, ``turnLimit`` times in all: its place was freed for
/// anybody, and a small population has nobody else. Participation is counted once for each client and attempt, whatever the
/// number of turns, and at most one of them is accepted; so the cost of an attempt with privacy does not depend on turns.
struct AttemptMembers: Sendable {
    /// Turns that one client has in one attempt, at most.
    static let turnLimit = 3

    /// Turns that were handed out, by client.
    private var turns: [String: Int] = [:]
    /// Clients that are not given work now: they are at it, have delivered, or have had their turns.
    private var settled: Set<String> = []
    /// Clients that get no further turn whatever happens.
    private var barred: Set<String> = []
    /// SHA-256 of the update that a client has begun to send, where a second one would be a second release.
    private var releases: [String: String] = [:]

    /// Clients that are not given work in the open attempt, as things stand.
    var settledCount: Int { settled.count }

    /// Whether the client may not be given work in the open attempt, as things stand.
    func contains(_ client: String) -> Bool { settled.contains(client) }

    /// Whether the client was given work in the open attempt.
    func hasHadTurn(_ client: String) -> Bool { turns[client] != nil }

    /// Everybody who was given work in the open attempt.
    var everybody: some Collection<String> { turns.keys }

    /// The number of the client's next turn, from 1.
    func nextTurn(of client: String) -> Int { (turns[client] ?? 0) + 1 }

    /// Notes that work of the open attempt was handed out.
    mutating func noteTurn(_ turn: Int, of client: String) { turns[client] = max(turns[client] ?? 0, turn) }

    /// Notes that the client is at work, has delivered, or may do neither again.
    mutating func settle(_ client: String) { settled.insert(client) }

    /// Gives the client another chance, unless it was barred.
    mutating func readmit(_ client: String) {
        if !barred.contains(client) { settled.remove(client) }
    }

    /// Gives the client no further turn, however the present one ends.
    mutating func bar(_ client: String) {
        barred.insert(client)
        settled.insert(client)
    }

    /// Notes the update that a client is about to send.
    ///
    /// - Returns: Whether it is the client's first one, or the same.
    mutating func noteRelease(_ digest: String, of client: String) -> Bool {
        guard let known = releases[client] else {
            releases[client] = digest
            return true
        }
        return known == digest
    }
}
