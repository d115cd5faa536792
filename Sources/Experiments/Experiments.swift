import ArgumentParser

/// `swift run -c release Experiments NAME`: what models learn, which ε attacks find, and what simulated populations show.
///
/// Each experiment is a subcommand and prints one JSON line for each case. How fast Martlet is, is measured by `Benchmarks`.
@main
struct Experiments: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "Experiments",
        abstract: "Run experiments on learning and privacy; every case is one JSON line.",
        subcommands: [LearningCommand.self, AuditCommand.self, AsynchronyCommand.self, VocabularyCommand.self]
    )
}
