import Foundation
import Tensors
package import WireFormat

/// What the words of a version are made of: read from the coordinator in one step, so that the work is done beside it.
package struct VocabularySource: Sendable {
    var run: String
    var version: Int
    /// The version's file.
    var path: String
    var specification: RunSpecification
    /// Reports that the version's counts are sums of.
    var reportCount: Int

    /// Reads the version, and sorts its words.
    ///
    /// A run may have 200,000 candidates, which take a good part of a second.
    ///
    /// - Parameter minimumCount: Words with a lower count are left out; absent: the run's own, or what noise hardly reaches.
    /// - Returns: All words that are shown.
    /// - Throws: ``CoordinationError`` `not_analytics` for a training run, `tensor_mismatch` for a file of another model.
    package func vocabulary(minimumCount: Double?) throws -> VocabularyView {
        guard let analytics = specification.analytics else {
            throw CoordinationError(
                .conflict,
                "not_analytics",
                "run '\(run)' trains a model; words are found by runs of kind analytics"
            )
        }
        let model = try SafetensorsFile(path: path).readAll()
        var result = VocabularyView(
            run: run,
            version: version,
            method: analytics.method.name,
            threshold: specification.privacy.threshold ?? analytics.voteThreshold.map { Double($0) },
            hidden: 0,
            unfinished: [],
            items: []
        )
        guard case .histogram(_, let ownMinimum) = analytics.method else {
            guard let trie = PrefixTrie(model) else {
                throw CoordinationError(.unprocessable, "tensor_mismatch", "the model is not the trie of this run")
            }
            result.items = trie.words.map { .init(word: $0) }
            result.unfinished = trie.unfinished
            return result
        }
        let candidates = specification.model.candidates
        guard candidates.count == model.values.count else {
            throw CoordinationError(.unprocessable, "tensor_mismatch", "the model has not one count for each candidate")
        }
        let error = specification.countError(version: version, reports: reportCount)
        let minimum = minimumCount ?? ownMinimum ?? Self.quietCount(error, candidates: candidates.count)
        result.countError = error
        result.minimumCount = minimum
        result.items = zip(candidates, model.values).filter { Double($0.1) >= minimum }
            .map { .init(word: $0.0, count: Double($0.1)) }
            .sorted {
                $0.count != $1.count
                    ? $0.count ?? 0 > $1.count ?? 0
                    : $0.word.unicodeScalars.lexicographicallyPrecedes($1.word.unicodeScalars)
            }
        result.hidden = candidates.count - result.items.count
        return result
    }

    /// A count that the noise of `candidates` unclaimed words reaches with probability 0.05 at most; 1 without noise.
    static func quietCount(_ error: Double, candidates: Int) -> Double {
        // P(N > t σ) ≤ e^(-t²/2) / 2.
        error > 0 ? error * (2 * log(Double(candidates) / 0.1)).squareRoot() : 1
    }
}

extension RunSpecification {
    /// Standard deviation of the noise on one count after so many versions and reports.
    func countError(version: Int, reports: Int) -> Double {
        guard let analytics else { return 0 }
        let noise = privacy.noiseMultiplier * analytics.sensitivity
        switch privacy.mode {
        case .central: return noise * Double(version).squareRoot()
        case .local: return 2 * noise * Double(reports).squareRoot()
        case .none: return 0
        }
    }
}
