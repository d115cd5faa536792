import Foundation
import LocalTraining
import Synchronization
import Tensors

/// Secrets planted at single clients of the Shakespeare run: what the published models tell about them.
///
/// A canary is a sentence with ten random letters, repeated in the text of one speaking role and known to nobody else. The
/// attacker has every published model and knows in which rounds the role took part: it sorts |R| sentences of the same kind by
/// how much those rounds lowered their loss. A canary's exposure is `log₂|R| − log₂ rank`; for a sentence that nobody has the
/// mean is 1.44. Source: Carlini et al. 2019, arXiv:1802.08232, with the loss before as the reference.
struct CanaryExperiment {
    static let name = "canaries"
    static let goal = 10
    static let rounds = 40
    /// C of the bounded cases.
    static let norm = 1
    /// How often a client's text has its secret; 0 for secrets that no client has.
    static let repeats = [0, 10, 100, 1000]
    /// Secrets, each at a client of its own, for each of ``repeats``.
    static let secretCount = 6
    /// |R| with the secret itself.
    static let spaceSize = 1024

    static let cases: [LearningCase] = [
        terms("no privacy", bound: #", "norm_bound": "none""#),
        terms("norms bounded by \(norm)", bound: #", "norm_bound": \#(norm)"#),
        terms("ε = 300", epsilon: 300), terms("ε = 8", epsilon: 8),
    ]

    let server: LearningServer
    let task: LearningTask

    /// One run with all secrets planted, and the exposure of each.
    ///
    /// - Returns: One point for each of ``repeats``.
    func perform(_ item: LearningCase, seed: UInt64) async throws -> [LearningPoint] {
        var generator = Xoshiro256StarStar(seed: seed &+ 1_000_000)
        var order = Array(task.clients.indices)
        generator.shuffle(&order)
        let secrets = Self.repeats.flatMap { repeats in
            (0..<Self.secretCount).map { _ in (repeats: repeats, text: Self.sentence(&generator)) }
        }
        let others = (1..<Self.spaceSize).map { _ in Self.sentence(&generator) }
        let holders = order.prefix(secrets.count)
        var clients = task.clients
        for (client, secret) in zip(holders, secrets) {
            clients[client] = Self.plant(secret.text, secret.repeats, in: clients[client])
        }
        generator.shuffle(&order)
        let attendance = Attendance()
        let trained = try await server.train(
            trainers: order.map { client in
                AttendingTrainer(honest: DeviceTrainer(data: clients[client])) { attendance.note(client, round: $0) }
            },
            isPrivate: item.isPrivate,
            runFile: { try item.runFile(population: $0, model: task.model, clientCount: clients.count, seed: seed) }
        )
        // By version: the losses of all secrets, then those of the other sentences.
        let sentences = secrets.map(\.text) + others
        let rounds = holders.map { attendance.rounds(of: $0) }
        var losses: [Int: [Double]] = [:]
        for version in Set(rounds.joined().flatMap { [$0 - 1, $0] }).sorted() {
            let model = try await server.weights(trained.run, version)
            losses[version] = try sentences.map { try task.judge.measure(model, of: .texts([$0])).nll }
        }
        let exposures = secrets.indices.map { secret in
            func drop(_ sentence: Int) -> Double {
                rounds[secret].reduce(0) { sum, round in
                    sum + (losses[round - 1]?[sentence] ?? 0) - (losses[round]?[sentence] ?? 0)
                }
            }
            let own = drop(secret)
            let rank = 1 + (secrets.count..<sentences.count).count { drop($0) > own }
            return ((log2(Double(Self.spaceSize)) - log2(Double(rank))) * 1000).rounded() / 1000
        }
        let metrics = try task.judge.measure(try await server.weights(trained.run, Self.rounds))
        let epsilon = try await server.epsilon(trained.run)
        var points = Self.repeats.map { repeats in
            var point = LearningPoint(
                item.name,
                seed: seed,
                round: Self.rounds,
                metrics,
                bytesUp: 0,
                seconds: trained.seconds
            )
            point.repeats = repeats
            // Who never came has told nothing.
            point.exposures = secrets.indices.filter { secrets[$0].repeats == repeats && !rounds[$0].isEmpty }
                .map { exposures[$0] }
            point.epsilon = epsilon
            return point
        }
        points[points.count - 1].sign()
        return points
    }

    // MARK: -

    private static func terms(_ name: String, bound: String = "", epsilon: Int? = nil) -> LearningCase {
        var item = LearningCase(
            name: name,
            rounds: rounds,
            measured: [],
            goal: goal,
            training: #"{"local": {"learning_rate": 3, "batch_size": 4, "clip": 1}}"#,
            aggregation: #"{"weighting": "uniform"\#(bound)}"#,
            task: .shakespeareCharacters
        )
        if let epsilon {
            item.privacy = """
                {"mode": "central", "target": {"epsilon": \(epsilon)}, "clipping": {"norm": \(norm)}}
                """
        }
        return item
    }

    /// `The secret is qzkfwpxjaa.` with random letters: all sentences have the same number of characters.
    private static func sentence(_ generator: inout Xoshiro256StarStar) -> String {
        let letters = (0..<10).map { _ in Character(UnicodeScalar(UInt8(97 + generator.nextIndex(below: 26)))) }
        return "The secret is " + String(letters) + ".\n"
    }

    /// A client's text with a sentence between its lines, as evenly as they allow.
    private static func plant(_ sentence: String, _ repeats: Int, in data: LocalData) -> LocalData {
        guard repeats > 0, case .texts(let texts) = data, let text = texts.first else { return data }
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        var result = ""
        for (number, line) in lines.enumerated() {
            result += line + (number < lines.count - 1 ? "\n" : "")
            let before = number * repeats / lines.count
            let after = (number + 1) * repeats / lines.count
            for _ in before..<after { result += sentence }
        }
        return .texts([result] + texts.dropFirst())
    }
}

/// A client that trains as any other and says in which rounds.
private struct AttendingTrainer: LocalTrainer {
    let honest: any LocalTrainer
    let attend: @Sendable (Int) -> Void

    func train(model: ParameterVector, instructions: TrainingInstructions) async throws -> TrainingResult {
        if let round = instructions.context?.round { attend(round) }
        return try await honest.train(model: model, instructions: instructions)
    }

    var canRehearse: Bool { honest.canRehearse }

    func check(_ task: TrainingTask, model: ParameterVector, instructions: TrainingInstructions) async throws {
        try await honest.check(task, model: model, instructions: instructions)
    }

    func rehearse(_ task: TrainingTask, model: ParameterVector, instructions: TrainingInstructions) async throws {
        try await honest.rehearse(task, model: model, instructions: instructions)
    }
}

/// Who took part in which rounds.
private final class Attendance: Sendable {
    private let rounds = Mutex<[Int: Set<Int>]>([:])
    func note(_ client: Int, round: Int) { rounds.withLock { _ = $0[client, default: []].insert(round) } }
    func rounds(of client: Int) -> Set<Int> { rounds.withLock { $0[client] ?? [] } }
}
