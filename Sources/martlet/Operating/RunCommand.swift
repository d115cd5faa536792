import ArgumentParser
import Foundation
import MartletOperator
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
            let (file, format) = (data, type)
            if dryRun {
                let target = Endpoints.createRun().with("dry_run", true).answering(RunPlan.self)
                let plan = try await access.ask { try await $0.answer(to: target, .bytes(file), contentType: format) }
                return try access.show(plan) { OperatorSentences.plan($0) }
            }
            let warnings = await access.json ? [] : access.warnings(of: file, format)
            let created = try await access.ask {
                try await $0.answer(to: Endpoints.createRun(), .bytes(file), contentType: format)
            }
            guard start else {
                return try access.show(created) {
                    OperatorSentences.run($0) + warnings + [OperatorSentences.next($0)]
                }
            }
            let view = try created.decoded()
            do {
                let started = try await access.answer(to: Endpoints.startRun(RunReference(view.id)))
                try access.show(started) { OperatorSentences.run($0) + warnings + [OperatorSentences.next($0)] }
            } catch let failure as Failure {
                throw Failure("\(view.id) was created, but not started: \(failure)")
            }
        }
    }

    struct Start: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Start a run.")
        @OptionGroup var access: ServerAccess
        @Argument(help: "The run's id.") var run: String
        func run() async throws { try await steer(access, Endpoints.startRun(RunReference(run))) }
    }

    struct Pause: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Hand out no more work until the run is resumed.")
        @OptionGroup var access: ServerAccess
        @Argument(help: "The run's id.") var run: String
        func run() async throws { try await steer(access, Endpoints.pauseRun(RunReference(run))) }
    }

    struct Resume: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Go on with a paused run.")
        @OptionGroup var access: ServerAccess
        @Argument(help: "The run's id.") var run: String
        func run() async throws { try await steer(access, Endpoints.resumeRun(RunReference(run))) }
    }

    struct Cancel: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "End a run for good.")
        @OptionGroup var access: ServerAccess
        @Argument(help: "The run's id.") var run: String
        func run() async throws { try await steer(access, Endpoints.cancelRun(RunReference(run))) }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "All runs.")
        @OptionGroup var access: ServerAccess

        func run() async throws {
            let answer = try await access.answer(to: Endpoints.runs())
            if access.json { return try access.show(answer.bytes) }
            let runs = try answer.decoded().items
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
            let run = RunReference(run)
            guard let round else { return try access.show(await access.answer(to: Endpoints.run(run)).bytes) }
            try access.show(await access.answer(to: Endpoints.round(run, RoundReference(round))).bytes)
        }
    }

    private static func steer(_ access: ServerAccess, _ target: RequestTarget<NoDocument, RunView>) async throws {
        try access.show(await access.answer(to: target)) { OperatorSentences.run($0) }
    }
}
