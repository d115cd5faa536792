import Aggregation
import Crypto
import Foundation
import StrictJSON
import Synchronization
import Tensors
import TestSupport
import Testing
import WireFormat

@testable import Coordination
@testable import DifferentialPrivacy

/// Audits of the real combination of updates, from files to the noised mean, and of wrong ones in its place.
///
/// Keys are fixed, so every outcome is always the same; false-alarm chances are for random keys.
@Suite(.timeLimit(.minutes(10)))
struct ReleaseAuditTests {
    private static let z = 2.0

    private static func specification(goal: Int, weighting: Weighting = .uniform) throws -> RunSpecification {
        try RunSpecification.sample {
            $0.cohort += ["goal": goal, "minimum": 1]
            $0.privacy += ["mode": "central", "noise_multiplier": z]
            if weighting == .examples { $0.aggregation += ["weighting": "examples", "example_cap": 4] }
        }
    }

    /// Noise from a counter of releases: known, and new for each release.
    final class Keys: Sendable {
        let next = Counter()
        func addNoise(_ sums: inout [Int64]) throws {
            let number = next.increment()
            let key = SymmetricKey(data: SHA256.hash(data: Data("release \(number)".utf8)))
            try IntegerGaussianSampler(testKey: key).addNoise(to: &sums)
        }
    }

    private struct Round {
        let directory: TemporaryDirectory
        let specification: RunSpecification
        let base: ParameterVector
        let updates: [AggregationJob.Update]

        init(_ specification: RunSpecification, _ values: [(values: [Float], examples: Int)]) throws {
            directory = try TemporaryDirectory()
            self.specification = specification
            let layout = ParameterLayout([.init(name: "w", shape: [values[0].values.count])])
            base = ParameterVector(zeros: layout)
            var updates: [AggregationJob.Update] = []
            for (index, item) in values.enumerated() {
                let path = directory.path + "/\(index).update"
                let data = SafetensorsWriter.encode(ParameterVector(layout: layout, values: item.values))
                try data.write(to: URL(fileURLWithPath: path))
                let assignment = AssignmentRecord(
                    id: "asg_\(index)",
                    runId: "run",
                    round: 1,
                    attempt: 1,
                    clientId: "clt_\(index)",
                    state: .accepted,
                    createdAt: Date(timeIntervalSince1970: 0),
                    deadline: Date(timeIntervalSince1970: 0),
                    updateSha256: "\(index)",
                    exampleCount: item.examples
                )
                updates.append(.init(assignment: assignment, path: path))
            }
            self.updates = updates
        }

        func release(_ mechanics: ReleaseMechanics) throws -> [Double] {
            var combination = UpdateCombination(
                specification: specification,
                updates: updates,
                layout: base.layout,
                base: [],
                report: { _, _ in }
            )
            combination.mechanics = mechanics
            return try #require(try combination.combine().aggregate)
        }
    }

    private static func right() -> ReleaseMechanics {
        let keys = Keys()
        var mechanics = ReleaseMechanics()
        mechanics.addNoise = { sums, _ in try keys.addNoise(&sums) }
        return mechanics
    }

    /// What section 9.2 measures, in units of their right values: noise, the largest contribution, and repeated noise.
    private struct Findings {
        /// Standard deviation of zero updates over zC/M.
        var noise: Double
        /// What one client far over the bound adds, over C/M; measured with the noise left out, so that it is exact.
        var contribution: Double
        /// Whether two releases have the same noise.
        var repeats: Bool

        /// Five standard deviations of the estimate from 40,000 coordinates are 5/√(2n) = 1.8 %; twice that is allowed.
        var isSound: Bool {
            abs(noise - 1) < 0.036 && contribution < 1 + 1e-6 && !repeats
        }
    }

    private static func audit(_ mechanics: ReleaseMechanics, examples: Int = 1, clients: Int = 3) throws -> Findings {
        let goal = 4
        let specification = try specification(goal: goal, weighting: examples > 1 ? .examples : .uniform)
        let dimension = 40_000
        let zero = (values: [Float](repeating: 0, count: dimension), examples: examples)
        // A norm of 10·C.
        let spread = 10 / Double(dimension).squareRoot()
        let loud = (values: [Float](repeating: Float(spread), count: dimension), examples: examples)
        let without = try Round(specification, Array(repeating: zero, count: clients))
        let with = try Round(specification, [loud] + Array(repeating: zero, count: clients - 1))
        let first = try without.release(mechanics)
        let second = try without.release(mechanics)
        let unit = z / Double(goal)
        let noise = (first.reduce(0) { $0 + $1 * $1 } / Double(dimension)).squareRoot() / unit
        // Without noise the bound itself is seen exactly.
        var silent = mechanics
        silent.addNoise = { _, _ in }
        let bare = try with.release(silent)
        let norm = bare.reduce(0) { $0 + $1 * $1 }.squareRoot()
        return Findings(
            noise: noise,
            contribution: norm * Double(goal),
            repeats: zip(first, second).allSatisfy { $0 == $1 } && first.contains { $0 != 0 }
        )
    }

    @Test func theRightReleaseIsSound() throws {
        #expect(try Self.audit(Self.right()).isSound)
        #expect(try Self.audit(Self.right(), examples: 4).isSound)
        // Also with one update of four wanted: noise and denominator stay as planned.
        #expect(try Self.audit(Self.right(), clients: 1).isSound)
    }

    /// More examples than the cap weigh what the cap weighs.
    @Test func examplesOverTheCapWeighNoMore() throws {
        let specification = try Self.specification(goal: 2, weighting: .examples)
        var silent = Self.right()
        silent.addNoise = { _, _ in }
        func released(_ examples: Int) throws -> Double {
            try Round(specification, [(values: [0.25, 0], examples: examples)]).release(silent)[0]
        }
        // A cap of 4: two examples are a half.
        let (two, four) = (try released(2), try released(4))
        #expect(abs(two - 0.25 / 4) < 1e-6 && abs(four - 0.25 / 2) < 1e-6)
        #expect(try released(5) == four)
        #expect(try released(1_000_000) == four)
    }

    /// What is no number is in no sum.
    @Test(arguments: [Float.nan, .infinity, -.infinity])
    func anUpdateThatIsNotFiniteIsRefused(_ value: Float) throws {
        let round = try Round(Self.specification(goal: 2), [(values: [0.5, value], examples: 1)])
        #expect(throws: AggregationError.self) { try round.release(Self.right()) }
    }

    /// A job that is run again after a stop publishes what the first one has made: noise is drawn once.
    @Test func aRepeatedJobHasTheFirstOnesNoise() throws {
        for policy in ["flat", "adaptive"] {
            let specification = try RunSpecification.sample {
                $0.cohort += ["goal": 2, "minimum": 1]
                $0.privacy += ["mode": "central", "noise_multiplier": 1]
                $0.privacy.clipping += ["policy": policy]
            }
            let round = try Round(specification, [(values: [0.5, 0.25], examples: 1)])
            let base = round.directory.path + "/base"
            try SafetensorsWriter.encode(round.base).write(to: URL(fileURLWithPath: base))
            let job = AggregationJob(
                specification: specification,
                updates: round.updates,
                basePath: base,
                resultPath: round.directory.path + "/result"
            )
            let first = try job.run()
            let again = try job.run()
            #expect(first.model?.sha256 == again.model?.sha256 && first.nextNorm == again.nextNorm)
            // Another attempt of the round is another release.
            var other = job
            other.resultPath += "-2"
            other.noiseKey = NoiseKey()
            let second = try other.run()
            #expect(first.model?.sha256 != second.model?.sha256)
            #expect(policy == "flat" ? first.nextNorm == nil : first.nextNorm != second.nextNorm)
        }
    }

    @Test func noNoiseIsFound() throws {
        var wrong = Self.right()
        wrong.addNoise = { _, _ in }
        #expect(try !Self.audit(wrong).isSound)
    }

    @Test func halfTheNoiseIsFound() throws {
        var wrong = Self.right()
        let keys = Keys()
        wrong.addNoise = { sums, _ in
            var noise = [Int64](repeating: 0, count: sums.count)
            try keys.addNoise(&noise)
            for index in sums.indices { sums[index] += noise[index] / 2 }
        }
        #expect(try !Self.audit(wrong).isSound)
    }

    @Test func noiseDividedTwiceIsFound() throws {
        var wrong = Self.right()
        let keys = Keys()
        wrong.addNoise = { sums, _ in
            var noise = [Int64](repeating: 0, count: sums.count)
            try keys.addNoise(&noise)
            for index in sums.indices { sums[index] += noise[index] / 4 }
        }
        #expect(try !Self.audit(wrong).isSound)
    }

    @Test func aClipBeforeTheWeightIsFound() throws {
        var wrong = Self.right()
        wrong.sumGrid = { grid, _ in
            .init(
                quantize: { value, weight in 4 * grid.quantize(value, scale: weight) },
                // The bound is checked on the value that has not been multiplied yet.
                shrinkFactor: { grid.shrinkFactor(measure: $0 / 16) }
            )
        }
        #expect(try !Self.audit(wrong, examples: 4).isSound)
    }

    @Test func aMissingClipIsFound() throws {
        var wrong = Self.right()
        wrong.sumGrid = { grid, _ in .init(quantize: { grid.quantize($0, scale: $1) }, shrinkFactor: { _ in 1 }) }
        #expect(try !Self.audit(wrong).isSound)
    }

    @Test func theSameKeyInTwoRoundsIsFound() throws {
        var wrong = Self.right()
        wrong.addNoise = { sums, _ in
            try IntegerGaussianSampler(testKey: SymmetricKey(data: [UInt8](repeating: 1, count: 32))).addNoise(
                to: &sums
            )
        }
        #expect(try !Self.audit(wrong).isSound)
    }

    @Test func aDenominatorOfRealisedWeightsIsFound() throws {
        var wrong = Self.right()
        wrong.divisor = { _, updates in Double(updates.reduce(0) { $0 + $1.weight }) }
        #expect(try !Self.audit(wrong).isSound)
    }

    @Test func noiseOncePerShardIsFound() throws {
        var wrong = Self.right()
        let keys = Keys()
        wrong.addNoise = { sums, _ in
            try keys.addNoise(&sums)
            try keys.addNoise(&sums)
        }
        // Too much noise breaks no promise; it is not the mechanism that was declared.
        #expect(try !Self.audit(wrong).isSound)
    }

    @Test func localNoiseForTheSensitivityOfCentralNoiseIsFound() throws {
        func deviation(_ z: Double) throws -> Double {
            var update = [Float](repeating: 0, count: 40_000)
            try LocalNoise.privatize(
                &update,
                clippingNorm: 1,
                noiseMultiplier: z
            ) { sums, _ throws(PrivacyError) in
                let key = SymmetricKey(data: [UInt8](repeating: 2, count: 32))
                try IntegerGaussianSampler(testKey: key).addNoise(to: &sums)
            }
            return (update.reduce(0.0) { $0 + Double($1) * Double($1) } / 40_000).squareRoot()
        }
        #expect(abs(try deviation(Self.z) / (2 * Self.z) - 1) < 0.036)
        // The mutation: C where 2C belongs is half of the multiplier.
        #expect(abs(try deviation(Self.z / 2) / (2 * Self.z) - 1) > 0.4)
    }

    /// Section 9.1: one run, canaries of norm exactly C in fixed directions, each in by a fair coin.
    @Test(.slow, arguments: [(0.600, 8.0, 2.0), (1.99, 2.0, 0.0), (7.03, 0.5, 0.0)])
    func theOneRunAuditStaysUnderTheClaimAndHasPower(_ z: Double, _ claim: Double, _ least: Double) throws {
        let (dimension, canaries, guesses) = (2_000, 1_000, 200)
        var scores = [Double](repeating: 0, count: canaries)
        var coins = [Bool](repeating: false, count: canaries)
        var generator = Xoshiro256StarStar(seed: 99)
        let grid = try NoiseGrid(clippingNorm: 1, noiseMultiplier: z, parameterCount: dimension)
        var sums = [Int64](repeating: 0, count: dimension)
        // Dirac canaries: canary i is ±C at coordinate i, through the same rounding and bound as any update.
        for index in 0..<canaries {
            coins[index] = generator.next() & 1 == 1
            guard coins[index] else { continue }
            var update = [Float](repeating: 0, count: dimension)
            update[index] = 1
            for (position, value) in grid.quantize(update).enumerated() where value != 0 { sums[position] += value }
        }
        let key = SymmetricKey(data: [UInt8](repeating: 5, count: 32))
        try IntegerGaussianSampler(testKey: key).addNoise(to: &sums)
        for index in 0..<canaries { scores[index] = Double(sums[index]) * grid.step }
        let audit = OneRunAudit(scores: scores, included: coins, guessCount: guesses)
        let bound = audit.epsilonLowerBound(delta: 1e-5)
        #expect(bound <= claim && bound >= least, "lower bound \(bound) for a claim of \(claim)")
        // Without noise the same audit refutes the claim of 2.
        let bare = OneRunAudit(scores: coins.map { $0 ? 1 : 0 }, included: coins, guessCount: guesses)
        #expect(bare.epsilonLowerBound(delta: 1e-5) > 2)
    }
}

/// A counter that threads share.
final class Counter: Sendable {
    private let value = Mutex(0)
    func increment() -> Int {
        value.withLock { value in
            value += 1
            return value
        }
    }
}
