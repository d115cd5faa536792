import ArgumentParser
import BenchmarkHarness
import Foundation

/// What models learn: experiments through a real server and a fleet of clients, one JSON line for each measured version.
///
/// Finished pairs of case and seed are left out, so that an interrupted command goes on where it stopped.
struct LearningCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "learning",
        abstract: "Run the experiments of docs/results.md.",
        discussion: """
                Experiments learning --list
                Experiments learning shakespeare-characters --data DIR
            """
    )

    @Argument(help: "Experiments; default: all.") var names: [String] = []
    @Option(help: "A directory with shakespeare.txt, tang-poems.jsonl and heart-disease.csv.") var data = "data"
    @Option(help: "Comma-separated seeds.") var seeds = "1,2,3"
    @Option(help: "Where results are kept.") var results = "docs/results"
    @Option(help: "Where servers and clients keep their files.") var work = ".build/learning"
    @Option(name: .customLong("case"), help: "This case only; may be repeated.") var cases: [String] = []
    @Flag(help: "Name the experiments and their cases.") var list = false

    func run() async throws {
        if list {
            for item in LearningExperiments.all {
                print("\(item.name): \(item.cases.map(\.name).joined(separator: "; "))")
            }
            print("\(HospitalExperiment.name): \(HospitalExperiment.cases.joined(separator: "; "))")
            print("\(CanaryExperiment.name): \(CanaryExperiment.cases.map(\.name).joined(separator: "; "))")
            print("\(PrivacyExperiment.name): \(PrivacyExperiment.cases.map(\.name).joined(separator: "; "))")
            return
        }
        let chosen = try experiments()
        let seeds = seeds.split(separator: ",").compactMap { UInt64($0) }
        var tasks: [LearningTaskName: LearningTask] = [:]
        for seed in seeds {
            if names.isEmpty || names.contains(HospitalExperiment.name) { try await hospitals(seed) }
            if names.isEmpty || names.contains(PrivacyExperiment.name) { try privacy(seed) }
            if names.isEmpty || names.contains(CanaryExperiment.name) { try await canaries(seed) }
            for experiment in chosen {
                let record = record(experiment.name)
                let open = try open(experiment.cases, seed, record, \.name).filter { $0.seeds?.contains(seed) != false }
                guard !open.isEmpty else { continue }
                let server = try LearningServer(directory: "\(work)/\(experiment.name)")
                for item in open {
                    let task = try tasks[item.task] ?? item.task.read(data)
                    tasks[item.task] = task
                    let points = try await server.perform(item, task, seed: seed)
                    try record.append(points)
                    report(experiment.name, points)
                }
                if seed == 1, experiment.drawn != ["none"] {
                    try await server.plot(experiment, seed: seed, to: "\(results)/\(experiment.name).svg")
                }
            }
        }
    }

    private func hospitals(_ seed: UInt64) async throws {
        let record = record(HospitalExperiment.name)
        let open = try open(HospitalExperiment.cases, seed, record, \.self)
        guard !open.isEmpty else { return }
        let server = try LearningServer(directory: "\(work)/\(HospitalExperiment.name)")
        for points in try await HospitalExperiment(server: server, data: data).perform(open, seed: seed) {
            try record.append(points)
            report(HospitalExperiment.name, points)
        }
    }

    private func canaries(_ seed: UInt64) async throws {
        let record = record(CanaryExperiment.name)
        let open = try open(CanaryExperiment.cases, seed, record, \.name)
        guard !open.isEmpty else { return }
        let server = try LearningServer(directory: "\(work)/\(CanaryExperiment.name)")
        let experiment = CanaryExperiment(server: server, task: try .shakespeareCharacters(data))
        for item in open {
            let points = try await experiment.perform(item, seed: seed)
            try record.append(points)
            report(CanaryExperiment.name, points)
        }
    }

    private func privacy(_ seed: UInt64) throws {
        let record = record(PrivacyExperiment.name)
        let open = try open(PrivacyExperiment.cases, seed, record, \.name)
        guard !open.isEmpty else { return }
        let experiment = PrivacyExperiment(task: try .shakespeareSmallest(data))
        for terms in open {
            let points = try experiment.perform(terms, seed: seed)
            try record.append(points)
            report(PrivacyExperiment.name, points)
        }
    }

    private func record(_ name: String) -> LearningRecord { LearningRecord(path: "\(results)/\(name).jsonl") }

    /// The cases of a seed that have no results yet.
    private func open<Case>(
        _ all: [Case],
        _ seed: UInt64,
        _ record: LearningRecord,
        _ name: KeyPath<Case, String>
    ) throws -> [Case] {
        let finished = Set(try record.points().filter { $0.seed == seed }.map(\.case))
        return all.filter { item in
            !finished.contains(item[keyPath: name]) && (cases.isEmpty || cases.contains(item[keyPath: name]))
        }
    }

    /// Experiments with code of their own.
    private static let others = [HospitalExperiment.name, PrivacyExperiment.name, CanaryExperiment.name]

    private func experiments() throws -> [LearningExperiment] {
        guard !names.isEmpty else { return LearningExperiments.all }
        return try names.filter { !Self.others.contains($0) }.map { name in
            guard let found = LearningExperiments.all.first(where: { $0.name == name }) else {
                throw ValidationError(
                    "there is no experiment \(name): \(LearningExperiments.all.map(\.name).joined(separator: ", "))"
                )
            }
            return found
        }
    }

    private func report(_ experiment: String, _ points: [LearningPoint]) {
        guard let last = points.last else { return }
        MeasuredCase(
            benchmark: "learning",
            name: "\(experiment): \(last.case), seed \(last.seed), round \(last.round)",
            unit: "top-1",
            values: [last.accuracy],
            extra: [
                "recall_at_3": last.recallAt3 ?? 0, "loss": last.loss, "bytes_up": last.bytesUp,
                "seconds": last.seconds,
            ]
        ).report()
    }
}
