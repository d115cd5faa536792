/// Everything that the first look at a server shows.
package struct OverviewView: Codable, Equatable, Sendable {
    /// What the caller may do.
    package var role: StaffRole
    package var version: String
    package var startedAt: String
    package var now: String
    package var disk: DiskView?
    package var clients: ClientCounts
    package var populations: [PopulationView]
    /// The runs that have not ended, and the newest of the others, oldest first; 200 at most.
    package var runs: [RunSummary]
    /// Runs that are not among them.
    package var moreRuns: Int
    package var problems: [ProblemView]
    package var recent: [EventView]

    package init(
        role: StaffRole,
        version: String,
        startedAt: String,
        now: String,
        disk: DiskView? = nil,
        clients: ClientCounts,
        populations: [PopulationView],
        runs: [RunSummary],
        moreRuns: Int,
        problems: [ProblemView],
        recent: [EventView]
    ) {
        self.role = role
        self.version = version
        self.startedAt = startedAt
        self.now = now
        self.disk = disk
        self.clients = clients
        self.populations = populations
        self.runs = runs
        self.moreRuns = moreRuns
        self.problems = problems
        self.recent = recent
    }
}

/// A run in a list: what changes, without its specification.
package struct RunSummary: Codable, Equatable, Sendable {
    package var id: String
    package var name: String
    package var population: String
    package var state: RunPhase
    package var reason: String?
    package var createdAt: String
    package var rounds: Int
    package var round: Int
    /// `training`, or `evaluation`: then `round` is the version that is measured.
    package var roundKind: RoundKind
    package var committedRounds: Int
    package var epsilon: Double?
    /// See ``RunView/bestVersion``.
    package var bestVersion: Int?
    package var metrics: [String: [String: Double]]?
    package var waitingFor: String

    package init(
        id: String,
        name: String,
        population: String,
        state: RunPhase,
        reason: String? = nil,
        createdAt: String,
        rounds: Int,
        round: Int,
        roundKind: RoundKind,
        committedRounds: Int,
        epsilon: Double? = nil,
        bestVersion: Int? = nil,
        metrics: [String: [String: Double]]? = nil,
        waitingFor: String
    ) {
        self.id = id
        self.name = name
        self.population = population
        self.state = state
        self.reason = reason
        self.createdAt = createdAt
        self.rounds = rounds
        self.round = round
        self.roundKind = roundKind
        self.committedRounds = committedRounds
        self.epsilon = epsilon
        self.bestVersion = bestVersion
        self.metrics = metrics
        self.waitingFor = waitingFor
    }
}

/// How many clients are in which state.
package struct ClientCounts: Codable, Equatable, Sendable {
    package var total = 0
    /// `active` (seen in the last quarter of an hour), `offline`, `registered` (never given work, but in secret draws), `quarantined`,
    /// `revoked`; while a run draws in secret the first three are one, `enrolled`.
    package var byState: [String: Int] = [:]
    /// By the value of the label `tier`, where clients carry it.
    package var byTier: [String: Int] = [:]
    /// Holding an assignment now; without those of secret draws.
    package var working = 0

    package init(
        total: Int = 0,
        byState: [String: Int] = [:],
        byTier: [String: Int] = [:],
        working: Int = 0
    ) {
        self.total = total
        self.byState = byState
        self.byTier = byTier
        self.working = working
    }
}

/// Something that an operator should know, in words.
package struct ProblemView: Codable, Equatable, Sendable {
    /// Stable name, such as `attempts_abandoned`.
    package var code: String
    /// `error` stops work, `warning` will, `notice` explains.
    package var severity: String
    package var run: String?
    package var runName: String?
    package var population: String?
    package var count: Int?
    package var detail: String

    package init(
        code: String,
        severity: String,
        run: String? = nil,
        runName: String? = nil,
        population: String? = nil,
        count: Int? = nil,
        detail: String
    ) {
        self.code = code
        self.severity = severity
        self.run = run
        self.runName = runName
        self.population = population
        self.count = count
        self.detail = detail
    }
}

/// The file system that holds the data directory.
package struct DiskView: Codable, Equatable, Sendable {
    package var freeBytes: Int
    package var totalBytes: Int

    package init(
        freeBytes: Int,
        totalBytes: Int
    ) {
        self.freeBytes = freeBytes
        self.totalBytes = totalBytes
    }
}

/// One state change of a run or a round, with the run it belongs to.
package struct EventView: Codable, Equatable, Sendable {
    package var run: String
    package var runName: String?
    /// 0 for a change of the run itself.
    package var round: Int
    package var attempt: Int
    package var at: String
    package var state: String
    package var cause: String

    package init(
        run: String,
        runName: String? = nil,
        round: Int,
        attempt: Int,
        at: String,
        state: String,
        cause: String
    ) {
        self.run = run
        self.runName = runName
        self.round = round
        self.attempt = attempt
        self.at = at
        self.state = state
        self.cause = cause
    }
}
