import BenchmarkHarness
import Foundation
import LocalTraining
import StrictJSON

/// One measured model version: a line of `docs/results/EXPERIMENT.jsonl`.
struct LearningPoint: Codable {
    var `case`: String
    var seed: UInt64
    var round: Int
    /// Top-1 recall on held-out data.
    var accuracy: Double
    var recallAt3: Double?
    var loss: Double
    var bitsPerByte: Double?
    /// Bytes of updates until then.
    var bytesUp: Int
    /// Of the run, without the judging.
    var seconds: Double
    /// Updates that stood out and did not count, until then.
    var excluded: Int?
    /// Spent until then at delta 1e-5, counted by the cap on participations.
    var epsilon: Double?
    /// Accuracy by hospital, where there are some.
    var sites: [Double]?
    /// The largest difference of a weight from the exact one, where that is known.
    var weightError: Double?
    /// Of secrets that were planted: how often each was in its client's text, and the exposure of each.
    var repeats: Int?
    var exposures: [Double]?
    /// The run's last line has when, on what and of which commit.
    var date: String?
    var cpu: String?
    var commit: String?

    init(_ name: String, seed: UInt64, round: Int, _ metrics: TrainingMetrics, bytesUp: Int, seconds: Double) {
        func rounded(_ value: Double) -> Double { (value * 1e5).rounded() / 1e5 }
        self.case = name
        self.seed = seed
        self.round = round
        accuracy = rounded(metrics.accuracy)
        recallAt3 = rounded(metrics.recallAt3)
        loss = rounded(metrics.loss)
        bitsPerByte = metrics.bytes > 0 ? rounded(metrics.bitsPerByte) : nil
        self.bytesUp = bytesUp
        self.seconds = (seconds * 10).rounded() / 10
    }

    /// Notes when and on what the run was made.
    mutating func sign() {
        date = String(Date.now.formatted(.iso8601).prefix(10))
        cpu = Machine.processor
        commit = Machine.commit
    }
}

/// The lines of one experiment, to which finished runs are added.
struct LearningRecord {
    let path: String

    /// What is there.
    func points() throws -> [LearningPoint] {
        guard let data = FileManager.default.contents(atPath: path) else { return [] }
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try data.split(separator: 0x0A).map { try decoder.decode(LearningPoint.self, from: Data($0)) }
    }

    /// Adds a run's lines at once, so that a run is there wholly or not at all.
    func append(_ points: [LearningPoint]) throws {
        var data = FileManager.default.contents(atPath: path) ?? Data()
        let rules = JSONEncodingRules(hasSnakeCaseNames: true)
        for point in points { data += Data((try JSONValue(encoding: point, rules).text + "\n").utf8) }
        let folder = (path as NSString).deletingLastPathComponent
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        try data.write(to: URL(fileURLWithPath: path), options: .atomic)
    }
}
