public import Foundation

/// Where a training belongs: for trainers that keep state between rounds, or that must be done in time.
public struct TrainingContext: Sendable {
    /// The run's id.
    public var run: String
    /// The round's number.
    public var round: Int
    /// When the server stops waiting.
    public var deadline: ContinuousClock.Instant?
    /// The model's `config.json`, where the run gives one.
    public var configuration: Data?

    /// Names a run and a round.
    public init(
        run: String = "run",
        round: Int = 1,
        deadline: ContinuousClock.Instant? = nil,
        configuration: Data? = nil
    ) {
        self.run = run
        self.round = round
        self.deadline = deadline
        self.configuration = configuration
    }
}
