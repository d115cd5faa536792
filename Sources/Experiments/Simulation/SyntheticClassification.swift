import Foundation
import Tensors

/// A softmax regression over clients whose classes differ: small enough that a simulation of hours takes seconds.
///
/// Each class is a Gaussian around a corner of its own; each client draws seven of ten examples from two classes. Everything
/// follows from the seed.
struct SyntheticClassification {
    static let featureCount = 20
    static let classCount = 8
    var featureCount: Int { Self.featureCount }
    var classCount: Int { Self.classCount }
    let clients: [[Example]]
    let heldOut: [Example]

    struct Example {
        var features: [Float]
        var label: Int
    }

    var layout: ParameterLayout {
        ParameterLayout([
            .init(name: "weight", shape: [classCount, featureCount]), .init(name: "bias", shape: [classCount]),
        ])
    }

    init(clientCount: Int, examplesEach: Int, seed: UInt64) {
        var generator = Xoshiro256StarStar(seed: seed)
        let (featureCount, classCount) = (Self.featureCount, Self.classCount)
        func normal() -> Float {
            let radius = (-2 * log(Double.random(in: 1e-12..<1, using: &generator))).squareRoot()
            return Float(radius * cos(2 * .pi * Double.random(in: 0..<1, using: &generator)))
        }
        let centers = (0..<classCount).map { _ in (0..<featureCount).map { _ in normal() * 0.55 } }
        func draw(_ label: Int) -> Example {
            Example(features: centers[label].map { $0 + normal() }, label: label)
        }
        var clients: [[Example]] = []
        for _ in 0..<clientCount {
            let favourites = [
                Int.random(in: 0..<classCount, using: &generator), Int.random(in: 0..<classCount, using: &generator),
            ]
            clients.append(
                (0..<examplesEach).map { index in
                    draw(index % 10 < 7 ? favourites[index % 2] : Int.random(in: 0..<classCount, using: &generator))
                }
            )
        }
        self.clients = clients
        heldOut = (0..<2000).map { draw($0 % classCount) }
    }

    /// Stochastic gradient descent from `start` on one client's examples.
    ///
    /// - Returns: New parameters minus old ones.
    func train(client: Int, from start: [Float], epochs: Int, learningRate: Float, seed: UInt64) -> [Float] {
        var generator = Xoshiro256StarStar(seed: seed)
        var parameters = start
        for _ in 0..<epochs {
            for example in clients[client].shuffled(using: &generator) {
                let probabilities = probabilities(of: example, parameters)
                for label in 0..<classCount {
                    let step = learningRate * (probabilities[label] - (label == example.label ? 1 : 0))
                    let row = label * featureCount
                    for index in 0..<featureCount { parameters[row + index] -= step * example.features[index] }
                    parameters[classCount * featureCount + label] -= step
                }
            }
        }
        return zip(parameters, start).map { $0 - $1 }
    }

    /// The share of held-out examples that are recognised.
    func accuracy(of parameters: [Float]) -> Double {
        let right = heldOut.count { example in
            let values = probabilities(of: example, parameters)
            return values.indices.max { values[$0] < values[$1] } == example.label
        }
        return Double(right) / Double(heldOut.count)
    }

    private func probabilities(of example: Example, _ parameters: [Float]) -> [Float] {
        var values = (0..<classCount).map { label in
            var sum = parameters[classCount * featureCount + label]
            let row = label * featureCount
            for index in 0..<featureCount { sum += parameters[row + index] * example.features[index] }
            return sum
        }
        let largest = values.max() ?? 0
        values = values.map { exp($0 - largest) }
        let total = values.reduce(0, +)
        return values.map { $0 / total }
    }
}
