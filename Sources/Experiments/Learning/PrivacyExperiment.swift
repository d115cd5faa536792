import BenchmarkHarness
import DifferentialPrivacy
import Foundation
import LocalTraining
import StrictJSON
import Tensors

/// Accuracy of client-level differential privacy at constant noise and growing cohorts.
///
/// It runs without a server, which would refuse most of these terms: with z = 0.3 and ten participations of one client there
/// is no ε at δ = 10⁻⁵ that the sampler's exactness can prove. The arithmetic is that of mode `central`: every change
/// is clipped to C, the sum gets Gaussian noise of standard deviation z·C, and is divided by K. Noise comes from a seeded
/// generator, which no real run does.
///
/// The model is small on purpose (``LearningTask/shakespeareSmallest(_:)``): the noise in the mean has norm z·C·√D/K over
/// D parameters beside a change of norm C at most, and a few hundred clients cannot drown the noise of a large model.
struct PrivacyExperiment {
    static let name = "privacy-cohorts"
    static let rounds = 40

    /// Terms of one case.
    struct Terms: Sendable {
        var noise: Double
        var goal: Int
        var norm: Double
        var name: String { "C=\(norm.formatted()) z=\(noise.formatted()) K=\(goal)" }
    }

    static let cases = [2.0, 4].flatMap { norm in
        [10, 30, 100].flatMap { goal in [0, 0.3, 1].map { Terms(noise: $0, goal: goal, norm: norm) } }
    }

    let task: LearningTask

    func perform(_ terms: Terms, seed: UInt64) throws -> [LearningPoint] {
        let start = ContinuousClock.now
        guard let object = try JSONSerialization.jsonObject(with: Data(task.model.utf8)) as? [String: Any],
            let config = object["config"].flatMap({ JSONValue(foundation: $0) }),
            let architecture = object["architecture"] as? String
        else { throw BenchmarkError("the task's model is not an object") }
        let text = config.text
        let made = try ModelArchitectures.make(.init(architecture: architecture, config: text))
        var instructions = TrainingInstructions(
            learningRate: 3,
            batchSize: 4,
            epochs: 1,
            gradientClip: 1,
            maxExamples: 40,
            seed: 0
        )
        let trainers = try task.clients.map { try made.makeTrainer(data: $0, instructions: instructions) }
        var model = made.initialParameters(seed: seed)
        var generator = Xoshiro256StarStar(seed: seed)
        var order = Array(trainers.indices)
        generator.shuffle(&order)
        var points: [LearningPoint] = []
        for round in 1...Self.rounds {
            var sum = ParameterVector(zeros: model.layout)
            for place in 0..<terms.goal {
                let client = order[((round - 1) * terms.goal + place) % order.count]
                instructions.seed = generator.next()
                // As with a server, a client whose training is no longer finite sends nothing.
                guard var delta = try finite(trainers[client], model, instructions) else { continue }
                let length = VectorKernels.squaredNorm(delta).squareRoot()
                if length > terms.norm { VectorKernels.scale(&delta, by: Float(terms.norm / length)) }
                VectorKernels.axpy(1, delta, into: &sum.values)
            }
            let deviation = terms.noise * terms.norm
            if deviation > 0 {
                for index in sum.values.indices { sum.values[index] += Float(deviation * normal(&generator)) }
            }
            VectorKernels.axpy(1 / Float(terms.goal), sum.values, into: &model.values)
            guard round.isMultiple(of: 10) else { continue }
            var point = LearningPoint(
                terms.name,
                seed: seed,
                round: round,
                try task.judge.measure(model),
                bytesUp: 0,
                seconds: (ContinuousClock.now - start) / .seconds(1)
            )
            // What a server would charge: the rounds that one client is in, without noise or with too little of it nothing.
            let participations = (round * terms.goal + order.count - 1) / order.count
            if terms.noise >= 1 {
                point.epsilon = GaussianAccountant.epsilon(
                    delta: 1e-5,
                    noiseMultiplier: terms.noise / Double(participations).squareRoot()
                )
            }
            points.append(point)
        }
        points[points.count - 1].sign()
        return points
    }

    private func finite(
        _ trainer: any ArchitectureTrainer,
        _ model: ParameterVector,
        _ instructions: TrainingInstructions
    ) throws -> [Float]? {
        do { return try trainer.train(model: model, instructions: instructions).delta.values } catch LocalTrainingError
            .numeric
        { return nil }
    }

    /// A standard normal number, by Box and Muller.
    private func normal(_ generator: inout Xoshiro256StarStar) -> Double {
        let radius = (-2 * log(max(Double(generator.nextUniform()), 0x1p-30))).squareRoot()
        return radius * cos(2 * .pi * Double(generator.nextUniform()))
    }
}
