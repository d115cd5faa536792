import Foundation
import LocalTraining
import Tensors
import WireFormat

/// The demo's run: settings that were found by experiment (README says which were tried).
struct DemoPlan {
    let rounds: Int
    let goal: Int
    let runFile: String

    init(data: DemoData, privacy: PrivacyMode, rounds: Int?, seed: UInt64) {
        // Each client takes part at most twice, and once in a round; 8% of the participations are spare, so that the
        // last rounds fill.
        let participations = 2
        let wanted = rounds ?? 40
        let fair = Int(Double(data.clientCount * participations) / (Double(wanted) * 1.08))
        goal = max(1, min(data.clientCount, fair))
        self.rounds = wanted
        let terms: String
        switch privacy {
        // z = 0.86 twice is one release at 0.608: epsilon 7.9 at delta 1e-5, the sampler's share included.
        case .central: terms = "{mode: central, clipping: {norm: 1.0}, noise_multiplier: 0.86}"
        case .local: terms = "{mode: local, clipping: {norm: 1.0}, noise_multiplier: 0.86}"
        case .none: terms = "{mode: none}"
        }
        runFile = """
            name: demo
            population: demo
            model:
              architecture: cifg-lstm
              config: {vocab_size: 52, embedding_dim: 16, hidden_dim: 64}
              initialization: {seed: "\(seed)"}
            rounds: \(wanted)
            cohort: {goal: \(goal), minimum: \(max(1, goal * 9 / 10)), over_selection: 1.0, \
            selection_timeout_s: 60, report_timeout_s: 60, max_participations: \(participations)}
            training: {local: {learning_rate: 3.0, batch_size: 2, epochs: 2, clip: 5}, data: {clean: false}}
            aggregation: {weighting: uniform, optimizer: {name: sgd, learning_rate: 2.0}}
            privacy: \(terms)

            """
    }

    /// Says so where the noise of a round is longer than any mean update can be: such a run cannot learn.
    func warning(privacy: PrivacyMode) -> String? {
        guard privacy != .none else { return nil }
        let dimension = Double(DemoData.configuration.layout.parameterCount)
        let perRound = privacy == .central ? 0.86 / Double(goal) : 2 * 0.86 / Double(goal).squareRoot()
        let ratio = perRound * dimension.squareRoot()
        guard ratio > 1 else { return nil }
        return String(
            format: "note: with %d updates a round the noise is %.1f times as long as the longest mean update; "
                + "the privacy is honest, the model will learn little (more clients help)",
            goal,
            ratio
        )
    }

    func introduction(_ data: DemoData) -> String {
        "\(data.clientCount) virtual clients\(data.isSynthetic ? " with synthetic messages" : ""), "
            + "\(DemoData.configuration.layout.parameterCount) parameters, \(rounds) rounds of \(goal) updates"
    }

    func suggestions(_ model: ParameterVector) throws -> [(prompt: String, words: [String])] {
        let suggester = try Suggester(
            architecture: try CIFGLSTMArchitecture(configuration: DemoData.configuration),
            model: model
        )
        return ["do you want to ", "i will be ", "can you bring the "].map { prompt in
            (prompt, suggester.suggest(after: prompt, count: 3).map(\.word))
        }
    }
}
