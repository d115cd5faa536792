import ArgumentParser
import BenchmarkHarness
import Foundation

/// Synchronous against asynchronous rounds where three of ten clients are ten times slower: simulated time to the same accuracy.
///
/// The coordinator is the real one, the clock is not: the figures are the same on every machine.
struct AsynchronyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "asynchrony",
        abstract: "Time to the same accuracy with slow clients, by way of aggregating (simulated clock)."
    )

    @Option(help: "Clients.") var clients = 100
    @Option(help: "The share of slow ones.") var slowShare = 0.3
    @Option(help: "How many times longer their work takes.") var slowness = 10.0
    @Option(help: "The accuracy to reach.") var accuracy = 0.76
    @Option(help: "The clients' learning rate.") var learningRate = 0.003
    @Option(help: "Seeds of the data; what accuracy can be reached depends on them.") var seeds = 1

    private static let ways: [(name: String, cohort: String, aggregation: String)] = [
        (
            "synchronous, waits for all 20", #""goal": 20, "minimum": 20, "over_selection": 1"#,
            #""mode": "synchronous""#
        ),
        ("synchronous, 20 of 30", #""goal": 20, "minimum": 20, "over_selection": 1.5"#, #""mode": "synchronous""#),
        (
            "asynchronous, 30 at work, buffer 10", #""goal": 10, "minimum": 10"#,
            #""mode": "buffered", "buffered": {"concurrency": 30, "buffer": 10, "max_staleness": 50}"#
        ),
    ]

    func run() async throws {
        let workspace = try ScratchDirectory()
        for (number, way) in Self.ways.enumerated() {
            var times: [Double] = []
            var shares: [Double] = []
            var (versions, refused) = (0, 0)
            for seed in 1...max(1, seeds) {
                let data = SyntheticClassification(clientCount: clients, examplesEach: 40, seed: UInt64(seed))
                let isSlow = (0..<clients).map { Double($0 * 7 % clients) < slowShare * Double(clients) }
                // Between 8 and 12 seconds, and ten times that.
                let work = (0..<clients).map {
                    (8 + 4 * Double($0 * 13 % clients) / Double(clients)) * (isSlow[$0] ? slowness : 1)
                }
                let outcome = try await SimulatedFleet(data: data).play(
                    .init(
                        cohort: way.cohort,
                        aggregation: way.aggregation,
                        rounds: 2000,
                        learningRate: Float(learningRate),
                        workSeconds: work,
                        isSlow: isSlow
                    ),
                    until: accuracy,
                    directory: workspace.path + "/\(number)-\(seed)"
                )
                guard let seconds = outcome.seconds(to: accuracy) else {
                    throw BenchmarkError(
                        "\(way.name) never had an accuracy of \(accuracy): best \(outcome.curve.map(\.accuracy).max() ?? 0)"
                    )
                }
                times.append(seconds)
                shares.append(Double(outcome.slowDeliveries) / Double(max(1, outcome.deliveries)))
                versions += outcome.curve.count
                refused += outcome.refused
            }
            var line = MeasuredCase(benchmark: "asynchrony", name: way.name, unit: "simulated s", values: times)
            line.extra = [
                "accuracy": accuracy, "clients": clients, "slow_share": slowShare, "slowness": slowness,
                "slow_updates_share": shares.reduce(0, +) / Double(shares.count),
                "versions": Double(versions) / Double(times.count), "refused": Double(refused) / Double(times.count),
            ]
            line.report()
        }
    }
}
