import ArgumentParser
import Foundation
import WireFormat

extension RunCommand {
    struct Plot: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Draw accuracy, loss, epsilon and bytes by round as an SVG file, several runs over each other.",
            discussion: """
                    martlet run plot run_7f3a -o curve.svg
                    martlet run plot run_7f3a run_91c2 --label private --label open -o compared.svg
                """
        )
        @OptionGroup var access: ServerAccess
        @Argument(help: "The runs' ids.") var runs: [String]
        @Option(name: .shortAndLong, help: "The SVG file; - is standard output.") var output: String
        @Option(help: "What to call each run, in order; default: its name.") var label: [String] = []
        @Option(help: "The picture's title.") var title: String?
        @Option(name: .customLong("panel"), help: "accuracy, loss, epsilon, bytes or seconds; may be repeated.")
        var panels: [String] = ["accuracy", "loss", "epsilon", "bytes"]

        func validate() throws {
            guard (1...8).contains(runs.count) else { throw ValidationError("give 1 to 8 runs, not \(runs.count)") }
            guard label.isEmpty || label.count == runs.count else {
                throw ValidationError("give a --label for each of the \(runs.count) runs, or none")
            }
            for panel in panels where !CurvePlot.panelNames.contains(panel) {
                throw ValidationError("--panel \(panel) is not one of \(CurvePlot.panelNames.joined(separator: ", "))")
            }
        }

        func run() async throws {
            var lines: [CurvePlot.Line] = []
            for (index, id) in runs.enumerated() {
                let curves = try await RunCurves.read(id, access)
                lines.append(CurvePlot.Line(name: label.isEmpty ? curves.run.name : label[index], curves: curves))
            }
            let text = CurvePlot(title: title, lines: lines, panels: panels).svg
            if output == "-" {
                print(text, terminator: "")
            } else {
                do { try text.write(toFile: output, atomically: true, encoding: .utf8) } catch {
                    throw Failure("cannot write \(output): is the directory there, and may it be written?")
                }
                print("\(output): \(Readable.count(runs.count, "run")), \(panels.joined(separator: ", "))")
            }
        }
    }
}
