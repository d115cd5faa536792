import Aggregation
import DifferentialPrivacy
import Foundation
import Tensors
import WireFormat

/// The arithmetic of one closed round: accepted updates in, the next model out, as a synced file.
///
/// The file appears by one rename. A job that is run again after a stop finds it and takes it: noise is drawn a second
/// time only when no first result exists anywhere.
struct AggregationJob: Sendable {
    struct Outcome: Sendable {
        var path: String
        var sha256: String
        var byteCount: Int
    }

    /// An accepted update.
    struct Update: Sendable {
        var path: String
        var exampleCount: Int
        /// Versions between the one that it started from and the one that it becomes a part of.
        var staleness = 0
    }

    var specification: RunSpecification
    var updates: [Update]
    var basePath: String
    var resultPath: String
    /// Is told how many seconds each phase took.
    var report: @Sendable (_ phase: String, _ seconds: Double) -> Void = { _, _ in }

    /// Runs one phase and reports its time.
    func timed<Result>(_ phase: String, _ body: () throws -> Result) rethrows -> Result {
        let start = ContinuousClock.now
        defer { report(phase, (ContinuousClock.now - start) / .seconds(1)) }
        return try body()
    }

    func run() throws -> Outcome {
        if FileManager.default.fileExists(atPath: resultPath) { return try outcome() }
        let base = try SafetensorsFile(path: basePath).readAll()
        let mean = try meanUpdate(layout: base.layout)
        let optimizer = FedAvg(learningRate: specification.aggregation.optimizer.learningRate)
        let next = ParameterVector(layout: base.layout, values: optimizer.step(base.values, mean: mean))
        guard next.values.allSatisfy(\.isFinite) else {
            throw CoordinationError(.unprocessable, "not_finite", "the next model has values that are not finite")
        }
        try BlobStore.writeDurably(SafetensorsWriter.encode(next, metadata: ["format": "martlet"]), to: resultPath)
        return try outcome()
    }

    /// What an update that is not stale weighs in mode `buffered`.
    static let stalenessUnit = 256

    /// 1/√(1+s) in whole units, so that sums stay exact.
    static func stalenessWeight(_ staleness: Int) -> Int {
        max(1, Int((Double(stalenessUnit) / Double(1 + staleness).squareRoot()).rounded()))
    }

    private func outcome() throws -> Outcome {
        let data = try Data(contentsOf: URL(fileURLWithPath: resultPath), options: .mappedIfSafe)
        return Outcome(path: resultPath, sha256: Secrets.sha256(data), byteCount: data.count)
    }

    /// The mean update, in parameter units; under central privacy over the fixed number of updates wanted.
    private func meanUpdate(layout: ParameterLayout) throws -> [Double] {
        let byExamples = specification.aggregation.weighting == "examples"
        let cap = specification.aggregation.exampleCap
        let isBuffered = specification.aggregation.mode == "buffered"
        let unit = isBuffered ? Self.stalenessUnit : 1
        let spooled = updates.map { update in
            let weight = byExamples ? max(1, min(update.exampleCount, cap)) : 1
            return SpooledUpdate(
                path: update.path,
                weight: isBuffered ? weight * Self.stalenessWeight(update.staleness) : weight
            )
        }
        guard specification.privacy.mode == "central" else {
            let mean = try timed("fold") {
                try FixedPointMean.mean(
                    of: spooled,
                    layout: layout,
                    valueBound: specification.aggregation.valueBound
                )
            }
            guard isBuffered else { return mean }
            // FedBuff divides by the number of updates and not by the sum of their weights: stale ones pull less.
            let share = Double(spooled.reduce(0) { $0 + $1.weight }) / Double(spooled.count * unit)
            return mean.map { $0 * share }
        }
        let grid = try NoiseGrid(
            clippingNorm: specification.privacy.clipping.norm,
            noiseMultiplier: specification.privacy.noiseMultiplier,
            parameterCount: layout.parameterCount
        )
        var sums = try timed("fold") {
            try BoundedSum.sum(
                of: spooled,
                layout: layout,
                weightCap: (byExamples ? cap : 1) * unit,
                grid: .init(
                    quantize: { grid.quantize($0, scale: $1) },
                    shrinkFactor: { grid.shrinkFactor(squaredNorm: $0) }
                )
            )
        }
        try timed("noise") { try IntegerGaussianSampler().addNoise(to: &sums) }
        let divisor = Double(specification.cohort.goal)
        return sums.map { Double($0) * grid.step / divisor }
    }
}
