import Aggregation
import DifferentialPrivacy
import Foundation
import SecureAggregation
import Tensors
import WireFormat

/// The arithmetic of one closed round: accepted updates in, the next model out, as a synced file.
///
/// Everything that goes with it (the optimiser's memory, the control variate) is a file beside it, and a ``ResultManifest`` that names
/// them all comes last, by one rename. A job that is run again in the same process has the same noise key, and makes the same files to
/// the bit. One that is run again after a stop believes a result whose manifest says that it is whole and was made of the same updates.
/// Otherwise another key is drawn, after whatever the first key had left is gone from the disk.
struct AggregationJob: Sendable {
    /// An accepted update.
    struct Update: Sendable {
        var assignment: AssignmentRecord
        var path: String
        /// Versions between the one that it started from and the one that it becomes a part of.
        var staleness = 0
        /// The squared L2 norm that admission measured; `nil` where it is not known any more.
        var squaredNorm: Double?
        /// Where its example count lies: with privacy, see ``SpooledReceipt``.
        var receiptPath: String?
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
        var cuts = CohortCuts()
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
    /// What the attempt's noise is made of.
    var noiseKey = NoiseKey()
    /// Mechanism `banded_matrix`: its key, and the state of the version before.
    var correlated: CorrelatedRelease?
    /// The server's half of a protected sum, in the place of the updates' own contents.
    var protected: ProtectedSum?
    /// Looks at the files that the job starts from, before it believes them.
    var verify: @Sendable () throws -> Void = {}
    /// Is told how many seconds each phase took.
    var report: @Sendable (_ phase: String, _ seconds: Double) -> Void = { _, _ in }

    /// Takes from the receipts what the rows do not say; done away from the actor, since it reads a file for each update.
    ///
    /// - Throws: ``CoordinationError`` `update_lost`, or `storage_failed` where the disk does not give one now.
    private mutating func readReceipts() throws {
        for index in updates.indices {
            guard let path = updates[index].receiptPath else { continue }
            guard let receipt = try SpooledReceipt.read(path: path) else {
                throw CoordinationError(
                    .unavailable,
                    "update_lost",
                    "what is known about an accepted update is missing"
                )
            }
            updates[index].assignment.exampleCount = receipt.exampleCount
        }
    }

    /// Runs one phase and reports its time.
    func timed<Result>(_ phase: String, _ body: () throws -> Result) rethrows -> Result {
        let start = ContinuousClock.now
        defer { report(phase, (ContinuousClock.now - start) / .seconds(1)) }
        return try body()
    }

    /// What an attempt may leave in the spool, after ``resultPath``; the manifest is removed first.
    static let resultSuffixes = [
        ResultManifest.suffix, "", optimizerSuffix, controlSuffix, normSuffix, noiseSuffix,
    ]
    private static let optimizerSuffix = ".optimizer"
    private static let controlSuffix = ".control"
    private static let normSuffix = ".norm"
    static let noiseSuffix = ".noise"
    /// Where a job's correlated mechanism writes its next state.
    static func noiseResultPath(_ resultPath: String) -> String { resultPath + noiseSuffix }

    /// Makes the next model, or takes the result that an earlier process made of the same updates.
    ///
    /// - Throws: What files cannot be read or written for; ``CoordinationError`` `update_lost`, `not_finite` or `tensor_mismatch`.
    func run() throws -> Outcome {
        if let known = try verifiedEarlierOutcome() { return known }
        var job = self
        try job.readReceipts()
        return try job.make()
    }

    /// The result that an earlier process made of the same updates, after a look at what it was made from; `nil` if there is none.
    func verifiedEarlierOutcome() throws -> Outcome? {
        try verify()
        return try earlierOutcome()
    }

    private func make() throws -> Outcome {
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
        if let protected {
            let sum = try unmask(protected)
            combined = try optimizer.stepping(
                &model.values,
                state: &state,
                observer: writer.put(_:of:)
            ) { receiver throws(any Error) in
                protected.deliver(sum, to: receiver)
                return UpdateCombination.Combined()
            }
        } else if specification.training.usesControlVariates {
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
                let divisor = specification.privacy.mode == .central ? specification.cohort.goal : updates.count
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
        guard combined.shortfall == nil else {
            return Outcome(scores: combined.scores, cuts: combined.cuts, shortfall: combined.shortfall)
        }
        guard writer.isFinite, state.moments.values.allSatisfy(VectorKernels.allFinite) else {
            throw CoordinationError(.unprocessable, "not_finite", "the next model has values that are not finite")
        }
        return try timed("publish") {
            var files: [String: File] = [:]
            files[Self.normSuffix] = try combined.nextNorm.map(write(norm:))
            files[Self.controlSuffix] = control
            if !state.moments.isEmpty {
                let path = resultPath + Self.optimizerSuffix
                files[Self.optimizerSuffix] = try Self.write(state.vector(layout: model.layout), to: path)
            }
            files[""] = try Self.finish(writer, model, path: resultPath)
            return try stand(files, scores: combined.scores, cuts: combined.cuts)
        }
    }

    /// Adds the level that the round voted on.
    ///
    /// Exact counts decide nothing: which prefixes are kept, which of them where there are too many, and whether the run goes on
    /// follows from noised ones. The noise is drawn once, since the level is a file before anybody sees it.
    private func growTrie(_ model: ParameterVector) throws -> Outcome {
        guard let trie = PrefixTrie(model), level <= trie.levelCount else {
            throw CoordinationError(.unprocessable, "tensor_mismatch", "the model is not the trie of this run")
        }
        guard case .gaussianSparseHistogram(let threshold) = specification.privacy.mechanism else {
            throw CoordinationError(
                .unprocessable,
                RunSpecification.withdrawnMethod,
                "method triehh is offered no more"
            )
        }
        let histogram = try GaussianSparseHistogram(
            noiseMultiplier: specification.privacy.noiseMultiplier,
            threshold: threshold ?? 0
        )
        let counts = try timed("fold") {
            try TrieVotes.count(updates.map { SpooledUpdate(path: $0.path, weight: 1) }, level: level, in: trie)
        }
        let grown = try timed("noise") {
            let nodes = counts.keys.sorted()
            let noised = try histogram.release(
                nodes.map { counts[$0] ?? 0 },
                releaseKey: noiseKey.derived(for: .counts)
            )
            return TrieVotes.grow(
                trie,
                level: level,
                by: zip(nodes, noised).compactMap { node, count in count.map { (node: node, noisedCount: $0) } }
            )
        }
        return try timed("publish") {
            try stand(["": Self.write(grown.vector, to: resultPath)])
        }
    }

    /// The sum of a protected round with all its noise.
    private func unmask(_ protected: ProtectedSum) throws -> [Int64] {
        try timed("unmask") {
            guard specification.privacy.mode == .central else { return try protected.noisedSum(nil) }
            let key = noiseKey.derived(for: .sum)
            let noise = try SessionNoise(of: protected.grid)
            return try protected.noisedSum { try noise.add(to: &$0, first: 0, key: key) }
        }
    }

    private func combination(_ model: ParameterVector) -> UpdateCombination {
        var combination = UpdateCombination(
            specification: specification,
            updates: updates,
            layout: model.layout,
            // A second reference to the values would make a copy of them when they take their step.
            base: specification.training.submit == .weights ? model.values : [],
            report: report
        )
        if let clippingNorm { combination.clippingNorm = clippingNorm }
        combination.noiseKey = noiseKey
        combination.correlated = correlated
        combination.correlated?.noiseKey = noiseKey
        return combination
    }

    /// Moves the server's control variate, `c ← c + |S| / N · mean(Δc)`.
    ///
    /// Source: Karimireddy et al. 2020, arXiv:1910.06378, Algorithm 1, line 17.
    private func advanceControl(by mean: [Double], layout: ParameterLayout) throws -> File {
        var control =
            try controlPath.map { try SafetensorsFile(path: $0).readAll() } ?? ParameterVector(zeros: layout)
        let reporting = specification.privacy.mode == .central ? specification.cohort.goal : updates.count
        let share = min(1, Double(reporting) / Double(max(1, clientCount)))
        for index in control.values.indices {
            control.values[index] = Float(Double(control.values[index]) + share * mean[index])
        }
        guard VectorKernels.allFinite(control.values) else {
            throw CoordinationError(.unprocessable, "not_finite", "the control variate has values that are not finite")
        }
        return try Self.write(control, to: resultPath + Self.controlSuffix)
    }

    private func write(norm: Double) throws -> File {
        let (path, data) = (resultPath + Self.normSuffix, Data(String(norm).utf8))
        try DurableFiles.write(data, to: path)
        return File(path: path, sha256: Secrets.sha256(data), byteCount: data.count)
    }

    private static func write(_ vector: ParameterVector, to path: String) throws -> File {
        let writer = try writer(vector.layout, path: path)
        writer.put(vector.values)
        return try finish(writer, vector, path: path)
    }

    private static func writer(_ layout: ParameterLayout, path: String) throws -> ModelWriter {
        try ModelWriter(layout, metadata: ModelFiles.metadata, path: path)
    }

    /// Gives the file its name; where the disk does not confirm it, it is written again under another one, from the values that are
    /// still here: a second sync of the first file would succeed although its data are lost.
    private static func finish(_ writer: ModelWriter, _ vector: ParameterVector, path: String) throws -> File {
        do {
            return File(path: path, sha256: try writer.finish(), byteCount: writer.byteCount)
        } catch let error as CoordinationError where error.storage?.action == .sync {
            let second = try Self.writer(vector.layout, path: path)
            second.put(vector.values)
            return File(path: path, sha256: try second.finish(), byteCount: second.byteCount)
        }
    }

    /// What an earlier process left in the spool, if it is whole and was made of the same; else it is removed, for good, before
    /// anything is drawn.
    private func earlierOutcome() throws -> Outcome? {
        let moved = correlated.map { [Self.noiseSuffix: $0.keptPath] } ?? [:]
        guard let manifest = try ResultManifest.read(result: resultPath), manifest.base == baseName,
            manifest.inputs == ResultManifest.digest(of: updates.map(\.assignment)),
            let paths = try manifest.wholeFiles(result: resultPath, orElse: moved)
        else {
            let directory = (resultPath as NSString).deletingLastPathComponent
            let name = (resultPath as NSString).lastPathComponent
            let left = try SpooledFile.names(in: directory).filter { $0.hasPrefix(name) }
            try DurableFiles.remove(left.map { directory + "/" + $0 }, in: directory)
            return nil
        }
        return try outcome(manifest, paths)
    }

    /// The name of the file that the job starts from: its SHA-256.
    private var baseName: String { (basePath as NSString).lastPathComponent }

    /// Writes down what the result is, after all its files: from then on it stands.
    ///
    /// - Parameters:
    ///   - files: What became of the sum, by the suffix of its file.
    ///   - scores: What was found of single updates.
    ///   - cuts: How far they were held back.
    /// - Returns: What the result comes to.
    /// - Throws: ``CoordinationError`` with code `storage_failed`; there is no result then.
    private func stand(
        _ files: [String: File],
        scores: [UpdateScoreRecord] = [],
        cuts: CohortCuts = CohortCuts()
    ) throws -> Outcome {
        var files = files
        if let correlated {
            let found = try SpooledFile.measure(correlated.nextPath)
            files[Self.noiseSuffix] = File(
                path: correlated.nextPath,
                sha256: found.sha256,
                byteCount: found.byteCount
            )
        }
        var manifest = ResultManifest(
            base: baseName,
            inputs: ResultManifest.digest(of: updates.map(\.assignment)),
            files: files.sorted { $0.key < $1.key }.map {
                .init(suffix: $0.key, sha256: $0.value.sha256, byteCount: $0.value.byteCount)
            }
        )
        // With privacy nothing that depends on single updates is kept.
        if specification.privacy.mode == .none { (manifest.scores, manifest.cuts) = (scores, cuts) }
        try manifest.write(result: resultPath)
        return try outcome(manifest, files.mapValues(\.path))
    }

    /// What a result that stands comes to, by its manifest and by where its files are.
    private func outcome(_ manifest: ResultManifest, _ paths: [String: String]) throws -> Outcome {
        func file(_ suffix: String) -> File? {
            guard let found = manifest.files.first(where: { $0.suffix == suffix }), let path = paths[suffix] else {
                return nil
            }
            return File(path: path, sha256: found.sha256, byteCount: found.byteCount)
        }
        let norm = try paths[Self.normSuffix].map { try DurableFiles.read($0, role: .result) }
        return Outcome(
            model: file(""),
            optimizer: file(Self.optimizerSuffix),
            control: file(Self.controlSuffix),
            // A publication that was interrupted may have given it its place already.
            noiseStatePath: paths[Self.noiseSuffix].flatMap { $0.hasPrefix(resultPath) ? $0 : nil },
            nextNorm: norm.flatMap { Double(String(decoding: $0, as: UTF8.self)) },
            spoolPaths: paths.values.filter { $0.hasPrefix(resultPath) }.sorted() + [
                resultPath + ResultManifest.suffix
            ],
            scores: manifest.scores ?? [],
            cuts: manifest.cuts ?? CohortCuts()
        )
    }
}

extension RunSpecification.Aggregation.Optimizer {
    /// The rule that the specification names.
    var serverOptimizer: any ServerOptimizer {
        switch self {
        case .sgd(let learningRate): FedAvg(learningRate: learningRate)
        case .momentum(let learningRate, let momentum): FedAvgM(learningRate: learningRate, momentum: momentum)
        case .adagrad(let learningRate, let beta1, let epsilon):
            FedAdagrad(learningRate: learningRate, beta1: beta1, epsilon: epsilon)
        case .adam(let rate, let moments):
            FedAdam(learningRate: rate, beta1: moments.beta1, beta2: moments.beta2, epsilon: moments.epsilon)
        case .yogi(let rate, let moments):
            FedYogi(learningRate: rate, beta1: moments.beta1, beta2: moments.beta2, epsilon: moments.epsilon)
        }
    }
}

extension AggregationJob {
    /// The arithmetic of a closed round, before what it takes from elsewhere is added.
    ///
    /// - Parameters:
    ///   - run: The run.
    ///   - round: The round.
    ///   - base: The version that it starts from.
    ///   - updates: What was accepted.
    ///   - blobs: Where the files are.
    init(_ run: RunState, _ round: RoundRecord, base: ModelVersionRecord, _ updates: [Update], _ blobs: any BlobStore) {
        self.init(
            specification: run.specification,
            updates: updates,
            basePath: blobs.path(sha256: base.sha256),
            optimizerPath: base.optimizerSha256.map { blobs.path(sha256: $0) },
            controlPath: base.controlSha256.map { blobs.path(sha256: $0) },
            level: round.number,
            resultPath: blobs.resultPath(run: round.runId, round: round.number, attempt: round.attempt),
            clippingNorm: base.clippingNorm
        )
    }
}
