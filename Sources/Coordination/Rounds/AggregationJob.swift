import Aggregation
import DifferentialPrivacy
import Foundation
import Tensors
import WireFormat

/// The arithmetic of one closed round: accepted updates in, the next model out, as a synced file.
///
/// The file appears by one rename, after everything that goes with it (the optimiser's memory, the control variate). A job that is run again after a stop finds it and takes it: noise is drawn a second time only when no first
/// result exists anywhere.
struct AggregationJob: Sendable {
    /// An accepted update.
    struct Update: Sendable {
        var assignment: AssignmentRecord
        var path: String
        /// Versions between the one that it started from and the one that it becomes a part of.
        var staleness = 0
        var exampleCount: Int { assignment.exampleCount ?? 1 }
    }

    struct File: Sendable {
        var path: String
        var sha256: String
        var byteCount: Int
    }

    struct Outcome: Sendable {
        /// Absent when too few updates were left to make a model of.
        var model: File?
        var optimizer: File?
        var control: File?
        /// What the correlated mechanism keeps for its next round.
        var noiseStatePath: String?
        /// Policy `adaptive`: the clipping norm of the next round.
        var nextNorm: Double?
        /// Everything that the attempt has in the spool.
        var spoolPaths: [String] = []
        var scores: [UpdateScoreRecord] = []
        /// Why there is no model.
        var shortfall: String?

        /// What becomes a blob.
        var files: [File] { [model, optimizer, control].compactMap { $0 } }
    }

    var specification: RunSpecification
    var updates: [Update]
    var basePath: String
    /// What the optimiser remembers with the base; absent before the first round, or when it remembers nothing.
    var optimizerPath: String?
    /// The server's control variate at the base; absent before the first round: zero.
    var controlPath: String?
    /// Clients that the population has: N of SCAFFOLD.
    var clientCount = 1
    /// The round's number: of an analytics run, how many scalars the prefixes have.
    var level = 1
    var resultPath: String
    /// C of this round, where it is not the specification's.
    var clippingNorm: Double?
    /// Mechanism `banded_matrix`: its key, and the state of the version before.
    var correlated: CorrelatedRelease?
    /// Is told how many seconds each phase took.
    var report: @Sendable (_ phase: String, _ seconds: Double) -> Void = { _, _ in }

    /// Runs one phase and reports its time.
    func timed<Result>(_ phase: String, _ body: () throws -> Result) rethrows -> Result {
        let start = ContinuousClock.now
        defer { report(phase, (ContinuousClock.now - start) / .seconds(1)) }
        return try body()
    }

    private var optimizerResultPath: String { resultPath + ".optimizer" }
    private var controlResultPath: String { resultPath + ".control" }
    private var normResultPath: String { resultPath + ".norm" }
    /// Where a job's correlated mechanism writes its next state.
    static func noiseResultPath(_ resultPath: String) -> String { resultPath + ".noise" }

    func run() throws -> Outcome {
        if FileManager.default.fileExists(atPath: resultPath) { return try earlierOutcome() }
        for path in [optimizerResultPath, controlResultPath, normResultPath, Self.noiseResultPath(resultPath)] {
            try? FileManager.default.removeItem(atPath: path)
        }
        var model = try SafetensorsFile(path: basePath).readAll()
        if specification.analytics?.isTrie == true { return try growTrie(model) }
        let optimizer = specification.aggregation.optimizer.serverOptimizer
        var state =
            try optimizerPath.map {
                try OptimizerState(SafetensorsFile(path: $0).readAll(), optimizer: optimizer, layout: model.layout)
            } ?? OptimizerState(initialFor: optimizer, parameterCount: model.layout.parameterCount)
        let combination = combination(model)
        let writer = try Self.writer(model.layout, path: resultPath)
        let combined: UpdateCombination.Combined
        var control: File?
        if specification.training.usesControlVariates {
            let (aggregate, outcome) = try combination.combine()
            combined = outcome
            if let aggregate {
                let parts = ControlVariates.split(aggregate, modelLayout: model.layout)
                control = try advanceControl(by: parts.control, layout: model.layout)
                optimizer.step(&model.values, aggregate: parts.model, state: &state)
                writer.put(model.values)
            }
        } else if specification.analytics != nil {
            let (aggregate, outcome) = try combination.combine()
            combined = outcome
            if let aggregate {
                // Counts are wanted, and not their mean over clients.
                let divisor = specification.privacy.mode == "central" ? specification.cohort.goal : updates.count
                optimizer.step(&model.values, aggregate: aggregate.map { $0 * Double(divisor) }, state: &state)
                writer.put(model.values)
            }
        } else {
            // The aggregate never exists as a whole: each block takes its step while it is in the cache, and is on its way
            // to the disk while the next one is made.
            combined = try optimizer.stepping(
                &model.values,
                state: &state,
                observer: writer.put(_:of:)
            ) { receiver throws(any Error) in
                try combination.combine(to: receiver)
            }
        }
        guard combined.shortfall == nil else { return Outcome(scores: combined.scores, shortfall: combined.shortfall) }
        guard writer.isFinite, state.moments.values.allSatisfy(VectorKernels.allFinite) else {
            throw CoordinationError(.unprocessable, "not_finite", "the next model has values that are not finite")
        }
        if let norm = combined.nextNorm {
            try BlobStore.writeDurably(Data(String(norm).utf8), to: normResultPath)
        }
        return try timed("publish") {
            let memory =
                state.moments.isEmpty
                ? nil : try Self.write(state.vector(layout: model.layout), to: optimizerResultPath)
            // Last: once this file has its name the result stands.
            let file = try Self.finish(writer, path: resultPath)
            return outcome(model: file, optimizer: memory, control: control, scores: combined.scores)
        }
    }

    /// Adds the level that the round voted on.
    private func growTrie(_ model: ParameterVector) throws -> Outcome {
        guard let trie = PrefixTrie(model), let threshold = specification.analytics?.threshold, level <= trie.levelCount
        else { throw CoordinationError(.unprocessable, "tensor_mismatch", "the model is not the trie of this run") }
        let grown = try timed("fold") {
            try TrieVotes.grow(
                trie,
                level: level,
                by: updates.map { SpooledUpdate(path: $0.path, weight: 1) },
                threshold: threshold
            )
        }
        return try timed("publish") {
            outcome(model: try Self.write(grown.vector, to: resultPath), optimizer: nil, control: nil, scores: [])
        }
    }

    private func combination(_ model: ParameterVector) -> UpdateCombination {
        var combination = UpdateCombination(
            specification: specification,
            updates: updates,
            layout: model.layout,
            // A second reference to the values would make a copy of them when they take their step.
            base: specification.training.submit == "weights" ? model.values : [],
            report: report
        )
        if let clippingNorm { combination.clippingNorm = clippingNorm }
        combination.correlated = correlated
        return combination
    }

    /// Moves the server's control variate, `c ← c + |S| / N · mean(Δc)`.
    ///
    /// Source: Karimireddy et al. 2020, arXiv:1910.06378, Algorithm 1, line 17.
    private func advanceControl(by mean: [Double], layout: ParameterLayout) throws -> File {
        var control =
            try controlPath.map { try SafetensorsFile(path: $0).readAll() } ?? ParameterVector(zeros: layout)
        let reporting = specification.privacy.mode == "central" ? specification.cohort.goal : updates.count
        let share = min(1, Double(reporting) / Double(max(1, clientCount)))
        for index in control.values.indices {
            control.values[index] = Float(Double(control.values[index]) + share * mean[index])
        }
        guard VectorKernels.allFinite(control.values) else {
            throw CoordinationError(.unprocessable, "not_finite", "the control variate has values that are not finite")
        }
        return try Self.write(control, to: controlResultPath)
    }

    private static func write(_ vector: ParameterVector, to path: String) throws -> File {
        let writer = try writer(vector.layout, path: path)
        writer.put(vector.values)
        return try finish(writer, path: path)
    }

    private static func writer(_ layout: ParameterLayout, path: String) throws -> ModelWriter {
        try ModelWriter(layout, metadata: ["format": "martlet"], path: path)
    }

    private static func finish(_ writer: ModelWriter, path: String) throws -> File {
        File(path: path, sha256: try writer.finish(), byteCount: writer.byteCount)
    }

    /// What an earlier run of the job left in the spool.
    ///
    /// Scores have no file of their own: the same updates give the same ones, and no noise is in
    /// them, as privacy for a sum and scores exclude each other.
    private func earlierOutcome() throws -> Outcome {
        func file(_ path: String) throws -> File? {
            guard FileManager.default.fileExists(atPath: path) else { return nil }
            let data = try Data(contentsOf: URL(fileURLWithPath: path), options: .mappedIfSafe)
            return File(path: path, sha256: Secrets.sha256(data), byteCount: data.count)
        }
        var scores: [UpdateScoreRecord] = []
        if specification.aggregation.anomalies != nil {
            scores = try combination(try SafetensorsFile(path: basePath).readAll()).combine { _, _ in }.scores
        }
        return outcome(
            model: try file(resultPath),
            optimizer: try file(optimizerResultPath),
            control: try file(controlResultPath),
            scores: scores
        )
    }

    /// Adds what lies in the spool beside the files that become blobs.
    private func outcome(model: File?, optimizer: File?, control: File?, scores: [UpdateScoreRecord]) -> Outcome {
        let noisePath = Self.noiseResultPath(resultPath)
        let paths = [resultPath, optimizerResultPath, controlResultPath, normResultPath, noisePath]
        let norm = FileManager.default.contents(atPath: normResultPath)
            .flatMap { Double(String(decoding: $0, as: UTF8.self)) }
        return Outcome(
            model: model,
            optimizer: optimizer,
            control: control,
            noiseStatePath: FileManager.default.fileExists(atPath: noisePath) ? noisePath : nil,
            nextNorm: norm,
            spoolPaths: paths.filter { FileManager.default.fileExists(atPath: $0) },
            scores: scores
        )
    }
}

extension RunSpecification.Aggregation.Optimizer {
    /// The rule that the specification names.
    var serverOptimizer: any ServerOptimizer {
        switch name {
        case "momentum": FedAvgM(learningRate: learningRate, momentum: momentum ?? 0.9)
        case "adagrad": FedAdagrad(learningRate: learningRate, beta1: beta1 ?? 0, epsilon: epsilon ?? 1e-3)
        case "adam":
            FedAdam(learningRate: learningRate, beta1: beta1 ?? 0.9, beta2: beta2 ?? 0.99, epsilon: epsilon ?? 1e-3)
        case "yogi":
            FedYogi(learningRate: learningRate, beta1: beta1 ?? 0.9, beta2: beta2 ?? 0.99, epsilon: epsilon ?? 1e-3)
        default: FedAvg(learningRate: learningRate)
        }
    }
}
