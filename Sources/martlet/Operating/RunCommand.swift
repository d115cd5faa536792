import ArgumentParser
import Foundation
import StrictJSON
import WireFormat

struct RunCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Create, steer and watch runs.",
        discussion: """
            martlet run create Examples/keyboard/run.yaml --start
            martlet run list
            martlet run watch RUN                  follows it to its end
            martlet run explain RUN                what happened and why, in sentences
            martlet run plot RUN -o curve.svg      accuracy, loss, epsilon, bytes
            """,
        subcommands: [
            Create.self, Start.self, Pause.self, Resume.self, Cancel.self, List.self, Show.self, Watch.self,
            Explain.self, Plot.self, Report.self, Words.self,
        ]
    )

    struct Create: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Create a run from a YAML or JSON file.")
        @OptionGroup var access: ServerAccess
        @Argument(help: "The run file.") var file: String
        @Flag(help: "Start it at once.") var start = false
        @Flag(help: "Create nothing: say what it would cost in privacy and bytes, and what would be in its way.")
        var dryRun = false

        @Option(help: "Count the words of this file, one a line (analytics.candidates).") var candidates: String?
        @Option(help: "Train on the words of this vocab.txt (model.config.tokenizer).") var vocabulary: String?

        func run() async throws {
            var data = Data(try DocumentFile.bytes(file))
            var type = file.hasSuffix(".json") ? "application/json" : "application/yaml"
            if candidates != nil || vocabulary != nil {
                let document = try DocumentFile.read(file, as: "a run file") { $0 }
                data = try WireCoding.encode(
                    RunWordFiles.adding(document, candidates: candidates, vocabulary: vocabulary)
                )
                type = "application/json"
            }
            let path = "/v1/runs" + (dryRun ? "?dry_run=true" : "")
            let answer = try await access.call("POST", path, body: data, contentType: type)
            if dryRun { return try access.show(answer, as: RunPlan.self) { OperatorSentences.plan($0) } }
            guard start else {
                return try access.show(answer, as: RunView.self) {
                    OperatorSentences.run($0) + [OperatorSentences.next($0)]
                }
            }
            let view = try WireCoding.decode(RunView.self, from: answer)
            do {
                let started = try await access.call("POST", "/v1/runs/\(escaped(view.id))/start", body: Data())
                try access.show(started, as: RunView.self) { OperatorSentences.run($0) + [OperatorSentences.next($0)] }
            } catch let failure as Failure {
                throw Failure("\(view.id) was created, but not started: \(failure)")
            }
        }
    }

    struct Start: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Start a run.")
        @OptionGroup var access: ServerAccess
        @Argument(help: "The run's id.") var run: String
        func run() async throws { try await steer(access, run, "start") }
    }

    struct Pause: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Hand out no more work until the run is resumed.")
        @OptionGroup var access: ServerAccess
        @Argument(help: "The run's id.") var run: String
        func run() async throws { try await steer(access, run, "pause") }
    }

    struct Resume: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Go on with a paused run.")
        @OptionGroup var access: ServerAccess
        @Argument(help: "The run's id.") var run: String
        func run() async throws { try await steer(access, run, "resume") }
    }

    struct Cancel: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "End a run for good.")
        @OptionGroup var access: ServerAccess
        @Argument(help: "The run's id.") var run: String
        func run() async throws { try await steer(access, run, "cancel") }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "All runs.")
        @OptionGroup var access: ServerAccess

        func run() async throws {
            let data = try await access.call("GET", "/v1/runs")
            if access.json { return try access.show(data) }
            struct Page: Decodable { var items: [RunView] }
            let runs = try WireCoding.decode(Page.self, from: data).items
            guard !runs.isEmpty else {
                print("no runs yet; make one with: martlet run create FILE --start")
                return
            }
            let terminal = Terminal.standardOutput
            var table = TextTable(
                ("RUN", .left),
                ("STATE", .left),
                ("ROUNDS", .right),
                ("EPSILON", .right),
                ("NAME", .left)
            )
            for run in runs {
                table.add(
                    Terminal.printable(run.id),
                    terminal.state(run.state),
                    "\(run.committedRounds)/\(run.specification.rounds)",
                    run.epsilon.map { Readable.rounded($0, 3) } ?? "-",
                    Terminal.printable(run.name)
                )
            }
            table.show(on: terminal)
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "A run, or one of its rounds.")
        @OptionGroup var access: ServerAccess
        @Argument(help: "The run's id.") var run: String
        @Option(help: "A round's number.") var round: Int?

        func run() async throws {
            let path = "/v1/runs/\(escaped(run))" + (round.map { "/rounds/\($0)" } ?? "")
            try access.show(await access.call("GET", path))
        }
    }

    private static func steer(_ access: ServerAccess, _ run: String, _ action: String) async throws {
        let answer = try await access.call("POST", "/v1/runs/\(escaped(run))/\(action)", body: Data())
        try access.show(answer, as: RunView.self) { OperatorSentences.run($0) }
    }
}
