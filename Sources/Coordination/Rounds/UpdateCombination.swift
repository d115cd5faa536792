import Aggregation
import DifferentialPrivacy
import Foundation
import Synchronization
import Tensors
import UpdateCompression
import WireFormat

/// Makes one aggregate of a round's updates: local minus global, by the run's rule, with what stands out left out.
struct UpdateCombination {
    struct Combined {
        var scores: [UpdateScoreRecord] = []
        /// Why nothing was given away.
        var shortfall: String?
        /// Policy `adaptive`: the clipping norm of the next round.
        var nextNorm: Double?
        /// How far single clients were held back.
        var cuts = CohortCuts()
    }

    let specification: RunSpecification
    let updates: [AggregationJob.Update]
    /// The model's values, where submitted weights are compared with them; else empty.
    let base: [Float]
    /// How a noised mean is made; tests put wrong ones in its place to see audits find them.
    var mechanics = ReleaseMechanics()
    /// What the attempt's noise is made of.
    var noiseKey = NoiseKey()
    /// C of this round.
    var clippingNorm: Double
    /// Mechanism `banded_matrix`: where its state is.
    var correlated: CorrelatedRelease?
    private let layout: ParameterLayout
    private let spooled: [SpooledUpdate]
    /// What is known before anything is read: how many weights were cut, and at what.
    private var cuts = CohortCuts()
    private let report: @Sendable (_ phase: String, _ seconds: Double) -> Void

    init(
        specification: RunSpecification,
        updates: [AggregationJob.Update],
        layout modelLayout: ParameterLayout,
        base: [Float],
        report: @escaping @Sendable (_ phase: String, _ seconds: Double) -> Void
    ) {
        self.report = report
        self.specification = specification
        self.updates = updates
        self.base = base
        clippingNorm = specification.privacy.clipping.norm
        layout =
            specification.training.usesControlVariates ? ControlVariates.jointLayout(modelLayout) : modelLayout
        let byExamples = specification.aggregation.weighting == .examples
        let cap = byExamples ? Self.weightCap(specification.aggregation.exampleCap, updates.map(\.exampleCount)) : nil
        if let cap {
            cuts.weightCap = cap
            cuts.cappedWeights = updates.count { $0.exampleCount > cap }
        }
        let isBuffered = specification.aggregation.isBuffered
        let leastWeight = specification.privacy.mode == .central ? 0 : 1
        spooled = updates.map { update in
            // With privacy the divisor is planned, and a device whose data gave nothing weighs 0.
            let weight = byExamples ? max(leastWeight, min(update.exampleCount, cap ?? .max)) : 1
            return SpooledUpdate(
                path: update.path,
                weight: isBuffered ? weight * Self.stalenessWeight(update.staleness) : weight,
                contentID: update.assignment.updateSha256
            )
        }
    }

    /// What one client of a cohort weighs at most; `nil` without a limit.
    ///
    /// - Parameters:
    ///   - bound: The run's `example_cap`.
    ///   - counts: What the cohort's clients say they stand for, in any order.
    /// - Returns: 1 to 2⁴⁰.
    static func weightCap(_ bound: CohortBound, _ counts: [Int]) -> Int? {
        bound.limit { CohortMedian.lower(counts).map(Double.init) }.map {
            Int(max(1, min(Double(RunSpecification.Aggregation.exampleCapLimit), $0.rounded(.down))))
        }
    }

    /// What an update that is not stale weighs in mode `buffered`.
    static let stalenessUnit = 256

    /// 1/√(1+s) in whole units, so that sums stay exact.
    static func stalenessWeight(_ staleness: Int) -> Int {
        max(1, Int((Double(stalenessUnit) / Double(1 + staleness).squareRoot()).rounded()))
    }

    /// What a weighted mean is multiplied by.
    ///
    /// FedBuff divides by the number of updates and not by the sum of their weights: stale ones pull less.
    private func discount(weights: [Int]) -> Double {
        guard specification.aggregation.isBuffered else { return 1 }
        return Double(weights.reduce(0, +)) / Double(weights.count * Self.stalenessUnit)
    }

    private func timed<Result>(_ phase: String, _ body: () throws -> Result) rethrows -> Result {
        let start = ContinuousClock.now
        defer { report(phase, (ContinuousClock.now - start) / .seconds(1)) }
        return try body()
    }

    /// Makes the aggregate.
    ///
    /// - Parameter receiver: Is given every block of it once, from several threads, unless there is a shortfall. After an
    ///   error it has seen some blocks, which are of no use.
    /// - Returns: The scores of single updates, and why there is no aggregate.
    /// - Throws: `AggregationError`, or a privacy error.
    func combine(to receiver: @escaping FixedPointMean.Receiver) throws -> Combined {
        let aggregation = specification.aggregation
        if specification.privacy.mode == .central { return try noisedMean(to: receiver) }
        if aggregation.isPlainMean && specification.training.submit == .delta {
            let (spooled, cuts) = try bounded()
            let share = discount(weights: spooled.map(\.weight))
            try timed("fold") {
                try FixedPointMean.means(of: spooled, layout: layout, valueBound: aggregation.valueBound) {
                    range,
                    means in
                    if share != 1 { for index in 0..<range.count { means[index] *= share } }
                    receiver(range, means)
                }
            }
            return Combined(cuts: cuts)
        }
        return try timed("fold") { try robustly(to: receiver) }
    }

    /// How many were held back, for a result that was made before.
    func measuredCuts() throws -> CohortCuts {
        guard limitsNorms else { return cuts }
        if specification.aggregation.rule == .mean && specification.training.submit == .delta {
            return try bounded().cuts
        }
        return try normCuts(columns().norms()).cuts
    }

    /// The updates with the factors that keep them within the run's norm bound.
    ///
    /// Norms are those that admission measured; after a restart they are measured again, in one more pass over the files.
    private func bounded() throws -> (updates: [SpooledUpdate], cuts: CohortCuts) {
        guard limitsNorms else { return (spooled, cuts) }
        let missing = updates.indices.filter { updates[$0].squaredNorm == nil }
        let measured = try timed("measure") {
            try UpdateNorms.squared(
                of: missing.map { spooled[$0] },
                layout: layout,
                valueBound: specification.aggregation.valueBound
            )
        }
        var norms = updates.map { ($0.squaredNorm ?? 0).squareRoot() }
        for (index, squared) in zip(missing, measured) { norms[index] = squared.squareRoot() }
        let (bound, cuts) = normCuts(norms)
        guard let bound else { return (spooled, cuts) }
        var result = spooled
        for (index, factor) in NormBounding.factors(norms: norms, bound: bound).enumerated() {
            result[index].factor = factor
        }
        return (result, cuts)
    }

    /// Whether updates are held back by their norms.
    private var limitsNorms: Bool { specification.aggregation.limitsNorms || noisedNormBound != nil }

    /// Mode `local`: a norm that an honest update with its noise does not pass, but with a probability under 10⁻¹⁰.
    ///
    /// Clients clip and noise by themselves, and one that does neither would count as much as all others. The bound is made of public
    /// terms, so that it costs no privacy. A Gaussian vector of deviation σ is longer than σ(√d + t) with a probability of at most
    /// e^(−t²/2); of Laplace noise, whose tails are heavier, more is let through.
    private var noisedNormBound: Double? {
        guard specification.privacy.mode == .local else { return nil }
        let privacy = specification.privacy
        let dimension: Double = Double(layout.parameterCount).squareRoot()
        let lengths: Double
        if privacy.mechanism == .laplace { lengths = 2 * dimension + 64 } else { lengths = dimension + 7 }
        let scale: Double = 2 * privacy.clipping.norm * privacy.noiseMultiplier
        return privacy.clipping.norm + scale * lengths
    }

    /// The norm bound of this cohort, and how many are over it.
    private func normCuts(_ norms: [Double]) -> (bound: Double?, cuts: CohortCuts) {
        var cuts = cuts
        let asked = specification.aggregation.normBound?.limit { CohortMedian.lowerOfPositive(norms) }
        let bound = [asked, noisedNormBound].compactMap(\.self).min()
        if let bound {
            cuts.normBound = bound
            cuts.cappedNorms = norms.count { $0 > bound }
        }
        return (bound, cuts)
    }

    /// The aggregate as one vector, shape `[layout.parameterCount]` of the updates; `nil` when too few were left.
    func combine() throws -> (aggregate: [Double]?, outcome: Combined) {
        let collected = Mutex<[Double]>([Double](repeating: 0, count: layout.parameterCount))
        let outcome = try combine { range, means in
            collected.withLock { values in for index in range { values[index] = means[index - range.lowerBound] } }
        }
        return (outcome.shortfall == nil ? collected.withLock { $0 } : nil, outcome)
    }

    /// Gives a whole vector away in blocks, in parallel.
    private func deliver(_ values: [Double], to receiver: FixedPointMean.Receiver) {
        Parallel.blocks(of: values.count, size: FixedPointMean.defaultBlockElementCount) { block in
            var part = Array(values[block])
            part.withUnsafeMutableBufferPointer { buffer in
                if let base = buffer.baseAddress { receiver(block, base) }
            }
        }
    }

    /// The mean over the fixed number of updates wanted, noised: mode `central`.
    private func noisedMean(to receiver: FixedPointMean.Receiver) throws -> Combined {
        let byExamples = specification.aggregation.weighting == .examples
        let unit = specification.aggregation.isBuffered ? Self.stalenessUnit : 1
        let terms = try ReleaseTerms(specification, layout: layout, clippingNorm: clippingNorm)
        var sums = try timed("fold") {
            try BoundedSum.sum(
                of: spooled,
                layout: layout,
                weightCap: (byExamples ? Int(specification.aggregation.exampleCap.number ?? 1) : 1) * unit,
                grid: mechanics.sumGrid(terms.grid, terms.parts)
            )
        }
        let divisor = mechanics.divisor(specification.cohort.goal, spooled)
        // A gradient's sign is turned: everything after this sees local minus global.
        let sign = specification.training.submit == .gradient ? -1.0 : 1
        if let banded = terms.banded {
            guard let correlated else { preconditionFailure("the job of a correlated mechanism names its state") }
            deliver(try timed("noise") { try correlated.release(sums, banded, scale: sign / divisor) }, to: receiver)
            return Combined(cuts: cuts)
        }
        try timed("noise") { try addNoise(to: &sums, terms.grid, .sum) }
        let step = sign * terms.grid.step
        let noised = sums
        Parallel.blocks(of: noised.count, size: FixedPointMean.defaultBlockElementCount) { range in
            withUnsafeTemporaryAllocation(of: Double.self, capacity: range.count) { means in
                for index in range {
                    means.initializeElement(at: index - range.lowerBound, to: Double(noised[index]) * step / divisor)
                }
                if let base = means.baseAddress { receiver(range, base) }
            }
        }
        return Combined(nextNorm: try terms.adaptive.map { try nextNorm($0) }, cuts: cuts)
    }

    private func addNoise(to sums: inout [Int64], _ grid: NoiseGrid, _ use: NoiseKey.Use) throws {
        if let addNoise = mechanics.addNoise { return try addNoise(&sums, grid) }
        try grid.addNoise(to: &sums, releaseKey: noiseKey.derived(for: use))
    }

    /// The next round's clipping norm, from the noisy share of updates that were within this round's.
    ///
    /// Each client's bit counts as bᵢ − ½, and one that sent none as 0; the divisor is the planned number of updates.
    private func nextNorm(_ rule: AdaptiveClipping) throws -> Double {
        let grid = try rule.countGrid
        let unit = Int64(grid.norm)
        var sums: [Int64] = [0]
        for update in spooled {
            switch try UpdateFile(path: update.path, layout: layout).metadata[UpdateMetadata.withinNorm] {
            case "1": sums[0] += unit
            case "0": sums[0] -= unit
            default: break
            }
        }
        try addNoise(to: &sums, grid, .clippingCount)
        let share = Double(sums[0]) * grid.step / mechanics.divisor(specification.cohort.goal, spooled) + 0.5
        return rule.nextNorm(after: clippingNorm, unclippedFraction: share)
    }

    // MARK: - Rules that look at single updates

    private func columns() throws -> UpdateColumns {
        let kind: UpdateColumns.Kind =
            switch specification.training.submit {
            case .weights: .weights(base: base)
            case .gradient: .gradient
            case .delta: .delta
            }
        return try UpdateColumns(
            of: spooled,
            layout: layout,
            kind: kind,
            valueBound: specification.aggregation.valueBound
        )
    }

    private func robustly(to receiver: FixedPointMean.Receiver) throws -> Combined {
        let columns = try columns()
        let anomalies = specification.aggregation.anomalies
        let needsNorms = anomalies != nil || specification.aggregation.limitsNorms
        let norms = needsNorms ? try columns.norms() : []
        // Of the whole cohort, also where some are left out afterwards: the bound is there to judge them by.
        let (bound, cuts) = normCuts(norms)
        func aggregate(_ rows: [Int]) throws -> [Double] {
            try self.aggregate(columns, rows: rows, norms: norms, bound: bound)
        }
        guard let anomalies else {
            deliver(try aggregate(Array(0..<columns.count)), to: receiver)
            return Combined(cuts: cuts)
        }
        var reasons = [String?](repeating: nil, count: columns.count)
        let ratios = AnomalyScores.ratios(norms: norms)
        for row in reasons.indices where ratios[row] > anomalies.normRatio {
            reasons[row] = "norm is \(Self.text(ratios[row])) times the cohort's median, over \(anomalies.normRatio)"
        }
        let removes = anomalies.action != .report
        func remaining() -> [Int] { reasons.indices.filter { !removes || reasons[$0] == nil } }
        var kept = remaining()
        var result: [Double]? = kept.isEmpty ? nil : try aggregate(kept)
        var cosines = [Double?](repeating: nil, count: columns.count)
        if let first = result {
            // A mean follows whoever is large enough, and would judge the others by him: the direction that counts is then
            // the median's, which a minority cannot turn.
            let isMean = specification.aggregation.rule == .mean
            let reference = isMean ? try CoordinateMedian.aggregate(columns.keeping(rows: kept)) : first
            cosines = try AnomalyScores.scores(columns, norms: norms, aggregate: reference).map(\.cosine)
            for row in reasons.indices where reasons[row] == nil {
                guard let limit = anomalies.minCosine, let cosine = cosines[row], cosine < limit else { continue }
                reasons[row] =
                    "cosine to the cohort's \(isMean ? "median" : "aggregate") is \(Self.text(cosine)), under \(limit)"
            }
            let left = remaining()
            if left != kept {
                kept = left
                result = kept.isEmpty ? nil : try aggregate(kept)
            }
        }
        let counted = Set(kept)
        let scores = columns.updates.indices.map { row in
            score(columns.updates[row], norms[row], ratios[row], cosines[row], counted.contains(row), reasons[row])
        }
        guard let result, kept.count >= specification.cohort.minimum else {
            return Combined(
                scores: scores,
                shortfall: "\(columns.count - kept.count) of \(columns.count) updates stood out and do not count, "
                    + "\(kept.count) are fewer than the minimum of \(specification.cohort.minimum)"
            )
        }
        deliver(result, to: receiver)
        return Combined(scores: scores, cuts: cuts)
    }

    private func score(
        _ update: SpooledUpdate,
        _ norm: Double,
        _ ratio: Double,
        _ cosine: Double?,
        _ counted: Bool,
        _ reason: String?
    ) -> UpdateScoreRecord {
        guard let assignment = updates.first(where: { $0.path == update.path })?.assignment else {
            preconditionFailure("every row is an update")
        }
        return UpdateScoreRecord(
            runId: assignment.runId,
            round: assignment.round,
            attempt: assignment.attempt,
            assignmentId: assignment.id,
            clientId: assignment.clientId,
            exampleCount: assignment.exampleCount ?? 1,
            norm: norm,
            normRatio: ratio,
            cosine: cosine,
            counted: counted,
            reason: reason
        )
    }

    private func aggregate(
        _ all: UpdateColumns,
        rows: [Int],
        norms: [Double],
        bound: Double?
    ) throws -> [Double] {
        let aggregation = specification.aggregation
        var columns = try all.keeping(rows: rows)
        if let bound {
            columns = columns.scaled(by: NormBounding.factors(norms: rows.map { norms[$0] }, bound: bound))
        }
        let weights = columns.updates.map(\.weight)
        func malicious(_ fraction: Double) -> Int {
            RunSpecification.Aggregation.Rule.maliciousCount(fraction, of: columns.count)
        }
        switch aggregation.rule {
        case .median: return try CoordinateMedian.aggregate(columns)
        case .trimmedMean(let fraction): return try TrimmedMean.aggregate(columns, trimCount: malicious(fraction))
        case .krum(let fraction):
            return try Krum.aggregate(columns, maliciousCount: malicious(fraction), selectedCount: 1)
        case .multiKrum(let fraction, let selectedCount):
            let malicious = malicious(fraction)
            let selected = selectedCount ?? max(1, columns.count - malicious - 2)
            return try Krum.aggregate(columns, maliciousCount: malicious, selectedCount: selected)
        case .geometricMedian: return try GeometricMedian.aggregate(columns, weights: weights)
        case .mean:
            let share = discount(weights: weights)
            let mean = try columns.mean(weights: weights)
            return share == 1 ? mean : mean.map { $0 * share }
        }
    }

    private static func text(_ value: Double) -> String { String(format: "%.3g", value) }
}
