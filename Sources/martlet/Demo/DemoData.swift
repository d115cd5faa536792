import ArgumentParser
import Foundation
import LocalTraining

/// The texts of the demo's clients, and texts of others on which models are judged.
struct DemoData {
    let clientCount: Int
    let isSynthetic: Bool
    let evaluation: LanguageTrainer
    /// What always guessing the most frequent symbol of the evaluation texts scores.
    let baseline: Double

    static let configuration = CIFGLSTMConfiguration(vocabularySize: 52, embeddingDimension: 16, hiddenDimension: 64)

    /// With `text`, the clients are its files or roles, and the last fifth of each one's lines, which trains nobody, judges.
    init(text: String?, clients: Int?, seed: UInt64) throws {
        let heldOut: [String]
        if let text {
            let all = try TextFiles.clients(at: text)
            guard all.count > 1 else {
                throw ValidationError(
                    all.isEmpty
                        ? "\(text) holds no text"
                        : "\(text) gives one client only; give a play, a file of many lines, or a directory of files"
                )
            }
            clientCount = min(clients ?? all.count, all.count)
            // At most some 100,000 characters, so that judging every round stays quick.
            heldOut = all.map { String($0.heldOut.prefix(400)) }.filter { !$0.isEmpty }.prefix(250).map { $0 }
            guard !heldOut.isEmpty else { throw ValidationError("\(text) has too few lines to judge a model by") }
        } else {
            clientCount = clients ?? 6000
            heldOut = SyntheticMessages.heldOut(clientCount: 60, seed: seed)
        }
        isSynthetic = text == nil
        evaluation = LanguageTrainer(
            architecture: try CIFGLSTMArchitecture(configuration: Self.configuration),
            texts: heldOut
        )
        baseline = evaluation.mostFrequentTokenShare
    }
}
