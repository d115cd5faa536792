package import DifferentialPrivacy
package import Foundation

/// What the coordinator needs from its surroundings.
package struct CoordinatorConfiguration: Sendable {
    /// Holds `blobs/` and `spool/`.
    package var dataDirectory: String
    /// The largest update or model taken.
    package var modelByteLimit: Int = 4 << 30
    /// Bytes of updates on their way in, over all clients; one upload is let in whatever its size.
    package var uploadByteLimit: Int = 2 << 30
    /// Requests of one client a second that are answered; `nil` for any number.
    package var clientRequestsPerSecond: Double?
    /// Long polls held at once; further ones are answered at once.
    package var waiterLimit: Int = 10_000
    /// Runs that have not ended, over all populations: a check-in looks at each one of its population.
    package var openRunLimit: Int = 200
    /// Events kept for watchers who come back, about.
    package var eventRetention: Int = 20_000
    /// Event streams open at once, and events that one of them may lag behind.
    package var eventListenerLimit: Int = 256
    package var eventQueueLimit: Int = 512
    package var now: @Sendable () -> Date = { Date() }

    /// The ledger's second record; best on another disk than the database.
    package var ledgerHeadPath: String

    /// Where the second record lies unless it is configured to lie elsewhere.
    var defaultLedgerHeadPath: String { dataDirectory + "/ledger.head" }

    /// Whether a second record that is not there may be made of what the database holds: for the first start that names one.
    package var mayMakeLedgerHead = false

    /// Seconds between two ticks after which the server counts as having been away, so that deadlines get the time back; `nil`
    /// where ticks come as they please.
    package var awayAfterSeconds: Double?

    /// Where keys of the states of correlated noise lie: each run's is this path with `.RUN`; best on another disk than the states.
    package var noiseKeyPath: String

    /// Draws the key of an attempt's noise; no setting reaches it, and tests that compare models to the bit put a known one here.
    package var drawNoiseKey: @Sendable (_ run: String, _ round: Int) -> NoiseKey = { _, _ in NoiseKey() }

    /// The second party of protected runs; absent: no run may be protected.
    package var helper: HelperSetting?

    /// Left by `martlet restore`: the database is as old as a backup.
    var restoredNotePath: String { dataDirectory + "/restored.json" }

    package init(dataDirectory: String) {
        self.dataDirectory = dataDirectory
        noiseKeyPath = dataDirectory + "/noise.key"
        ledgerHeadPath = dataDirectory + "/ledger.head"
    }
}
