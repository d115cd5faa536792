import ArgumentParser
import MartletOperator
import WireFormat

extension RunCommand {
    struct Report: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Record what you measured of a model version; dashboard and plots show it.",
            discussion: """
                    martlet run report run_7f3a --version 12 accuracy=0.431 loss=2.05
                """
        )
        @OptionGroup var access: ServerAccess
        @Argument(help: "The run's id.") var run: String
        @Argument(help: "Measurements as NAME=VALUE, such as accuracy=0.431.") var metrics: [String]
        @Option(help: "The model version: a number or latest.") var version = "latest"
        @Option(help: "Who measured; a later report of the same source replaces it.") var source = "held-out"

        func run() async throws {
            var values: [String: Double] = [:]
            for text in metrics {
                let parts = text.split(separator: "=", maxSplits: 1)
                guard parts.count == 2, let value = Double(parts[1]), value.isFinite else {
                    throw ValidationError("'\(text)' is not NAME=VALUE, such as accuracy=0.431")
                }
                values[String(parts[0])] = value
            }
            let target = Endpoints.reportMetrics(RunReference(run), VersionReference(version))
            try access.show(await access.answer(to: target, MetricsReport(metrics: values, source: source)).bytes)
        }
    }
}
