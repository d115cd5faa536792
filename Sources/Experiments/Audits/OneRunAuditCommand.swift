import ArgumentParser
import BenchmarkHarness
import DifferentialPrivacy
import Foundation
import Tensors

/// A thousand canaries in one round, each in by a fair coin; every round is an audit of its own.
///
/// Canaries are fixed random directions of norm C, so that nothing about them depends on coordinates.
struct OneRunAuditCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "one-run",
        abstract: "The epsilon that guesses about a thousand canaries refute, for claims of 0.5, 2 and 8."
    )
    @Option(help: "Rounds for each claim.") var rounds = 5
    @Option(help: "Canaries, each a client.") var canaries = 1000
    @Option(help: "Guesses: half of them in, half of them out.") var guesses = 200
    @Option(help: "Parameters of the model.") var dimension = 100_000
    @Option(help: "The seed of the directions and the coins.") var seed: UInt64 = 1

    func validate() throws {
        guard rounds >= 1, (2...100_000).contains(canaries), (2...canaries).contains(guesses), dimension >= 2 else {
            throw ValidationError("--rounds must be 1 or more, --guesses 2 to --canaries, --dimension 2 or more")
        }
    }

    func run() throws {
        let directions = Directions(count: canaries, dimension: dimension, seed: seed)
        var isSound = true
        for (z, claim) in [(7.03, 0.5), (1.99, 2.0), (0.6, 8.0)] {
            let bounds = try audit(z, directions)
            let over = bounds.count { $0 > claim }
            MeasuredCase(
                benchmark: "audit",
                name: "one run: lower bound on epsilon, z=\(z) d=\(dimension) m=\(canaries) r=\(guesses)",
                unit: "epsilon",
                values: bounds,
                limit: claim,
                limitName: "claimed for one round at delta 1e-5",
                extra: ["over_the_claim": over]
            ).report()
            if Double(over) > 0.05 * Double(rounds) { isSound = false }
        }
        guard isSound else { throw BenchmarkError("more than one audit in twenty refutes its claim") }
    }

    private func audit(_ z: Double, _ directions: Directions) throws -> [Double] {
        let lanes = 4
        let workspace = try ScratchDirectory()
        let server = try AuditedServer(directory: workspace.path + "/data")
        let run = try AuditedRun(
            try LoopbackConnection(port: server.port),
            administrator: server.token,
            clientCount: canaries,
            dimension: dimension,
            specification: """
                "rounds": \(rounds),
                "cohort": {"goal": \(canaries), "minimum": \(canaries), "over_selection": 1, "max_participations": \(rounds)},
                "privacy": {"mode": "central", "noise_multiplier": \(z)}
                """
        )
        var generator = Xoshiro256StarStar(seed: seed &+ 1)
        var bounds: [Double] = []
        var last = [Float](repeating: 0, count: dimension)
        let zeros = last
        for round in 1...rounds {
            let coins = (0..<canaries).map { _ in generator.next() & 1 == 1 }
            try server.together(lanes) { lane, connection in
                for index in stride(from: lane, to: canaries, by: lanes) {
                    let client = run.clients[index]
                    let path = try run.assignment(client, connection)
                    try run.send(coins[index] ? directions[index] : zeros, to: path, client, connection)
                }
            }
            let model = try run.version(round, try LoopbackConnection(port: server.port))
            let change = zip(model, last).map { $0 - $1 }
            last = model
            let scores = (0..<canaries).map { index in
                zip(directions[index], change).reduce(0.0) { $0 + Double($1.0) * Double($1.1) }
            }
            bounds.append(
                OneRunAudit(scores: scores, included: coins, guessCount: guesses)
                    .epsilonLowerBound(delta: AuditCommand.delta)
            )
        }
        return bounds
    }
}

/// Random directions of norm 1, from a seed.
private struct Directions: Sendable {
    private let vectors: [[Float]]

    init(count: Int, dimension: Int, seed: UInt64) {
        var vectors: [[Float]] = []
        for index in 0..<count {
            var generator = Xoshiro256StarStar(seed: seed &* 0x1_0000_0001 &+ UInt64(index))
            var values = [Float](repeating: 0, count: dimension)
            var squares = 0.0
            for place in values.indices {
                let radius = (-2 * log(max(Double(generator.nextUniform()), 0x1p-25))).squareRoot()
                let value = radius * cos(2 * .pi * Double(generator.nextUniform()))
                values[place] = Float(value)
                squares += value * value
            }
            let scale = Float(1 / squares.squareRoot())
            for place in values.indices { values[place] *= scale }
            vectors.append(values)
        }
        self.vectors = vectors
    }

    subscript(index: Int) -> [Float] { vectors[index] }
}
