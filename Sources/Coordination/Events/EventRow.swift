package import Foundation
import WireFormat

/// Something that happened, as watchers are told; stored in the transaction of what it tells.
package struct EventRow: Codable, Equatable, Sendable {
    /// Increasing; the `Last-Event-ID` of the stream.
    package var id: Int
    package var at: Date
    /// `run`, `round`, `model`, `metrics`, `budget` or `clients`.
    package var type: String
    package var runId: String?
    package var populationId: String?
    /// One JSON object.
    package var data: String
}

/// A run as an event shows it: everything that changes.
struct RunEventData: Encodable {
    var id: String
    var name: String
    var population: String
    var state: RunPhase
    var reason: String?
    var createdAt: String
    var round: Int
    var committedRounds: Int
    var modelVersion: Int?
    var modelSha256: String?
    var epsilon: Double?
    var waitingFor: String
}

/// A change of a population's budget: one row of its ledger.
struct BudgetEventData: Encodable {
    var population: String
    var run: String
    var round: Int
    var attempt: Int
    var state: ChargeState
    var epsilonAfter: Double
}

/// What was measured of a model version.
struct MetricsEventData: Encodable {
    var run: String
    var version: Int
    var source: String
    var metrics: [String: Double]
}

/// How many clients of a population are in each state.
struct ClientsEventData: Encodable {
    var population: String
    var clients: [String: Int]
}
