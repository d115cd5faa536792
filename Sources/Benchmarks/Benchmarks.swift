import ArgumentParser

/// `swift run -c release Benchmarks NAME`: measures the speed of one subject and prints one JSON line for each case.
///
/// One file per subject, in `Subjects`; each is a subcommand. Every figure stands beside the limit that it is judged by, measured in the
/// same run. What models learn and what ε really is, is in `Experiments`.
@main
struct Benchmarks: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "Benchmarks",
        abstract: "Measure how fast Martlet is; every case is one JSON line.",
        subcommands: [
            FoldBenchmark.self, IntakeBenchmark.self, DownloadBenchmark.self, RoundBenchmark.self,
            RequestsBenchmark.self, TrainingBenchmark.self, PrivacyBenchmark.self, PopulationBenchmark.self,
        ]
    )
}
