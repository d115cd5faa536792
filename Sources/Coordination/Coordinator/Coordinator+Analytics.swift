import DifferentialPrivacy
import Foundation
import Tensors
import WireFormat

/// Words that an analytics run has found, with their counts where it counts.
package struct VocabularyView: Codable, Equatable, Sendable {
    package struct Item: Codable, Equatable, Sendable {
        package var word: String
        /// Clients that hold the word, noised where the run is private; `null` for TrieHH, which publishes no counts.
        package var count: Double?

        package init(word: String, count: Double? = nil) {
            self.word = word
            self.count = count
        }
    }
    package var run: String
    package var version: Int
    package var method: String
    /// Standard deviation of the noise on a count; 0 without privacy, `null` for TrieHH.
    package var countError: Double?
    /// Words with a lower count are not shown.
    package var minimumCount: Double?
    /// Votes that each word had at least (TrieHH).
    package var threshold: Int?
    /// Candidates that are not shown, because their counts are too low.
    package var hidden: Int
    /// Prefixes that go on where the run ended (TrieHH).
    package var unfinished: [String]
    /// Most frequent first; TrieHH's by code point.
    package var items: [Item]
    package var nextCursor: String?
}

extension Coordinator {
    /// The vocabulary that a version of an analytics run holds.
    ///
    /// - Parameters:
    ///   - id: The run.
    ///   - version: A number, or `latest`.
    ///   - minimumCount: Words with a lower count are left out; absent: the run's own, or what noise hardly reaches.
    /// - Returns: All words that are shown.
    /// - Throws: ``CoordinationError`` `not_analytics` for a training run.
    package func vocabulary(run id: String, version: String, minimumCount: Double?) throws -> VocabularyView {
        let view = try model(run: id, version: version)
        let run = try runState(id)
        guard let analytics = run.specification.analytics else {
            throw CoordinationError(
                .conflict,
                "not_analytics",
                "run '\(id)' trains a model; words are found by runs of kind analytics"
            )
        }
        let model = try SafetensorsFile(path: blobs.path(sha256: view.sha256)).readAll()
        var result = VocabularyView(
            run: id,
            version: view.version,
            method: analytics.method,
            threshold: analytics.threshold,
            hidden: 0,
            unfinished: [],
            items: []
        )
        if analytics.isTrie {
            guard let trie = PrefixTrie(model) else {
                throw CoordinationError(.unprocessable, "tensor_mismatch", "the model is not the trie of this run")
            }
            result.items = trie.words.map { .init(word: $0) }
            result.unfinished = trie.unfinished
            return result
        }
        let candidates = run.specification.model.candidates
        guard candidates.count == model.values.count else {
            throw CoordinationError(.unprocessable, "tensor_mismatch", "the model has not one count for each candidate")
        }
        let reports = run.rounds.filter { $0.phase == .committed && $0.number <= view.version }.reduce(0) {
            $0 + $1.accepted
        }
        let error = run.specification.countError(version: view.version, reports: reports)
        let minimum = minimumCount ?? analytics.minimumCount ?? Self.quietCount(error, candidates: candidates.count)
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

    /// Refuses a threshold whose δ alone is more than the population's.
    func checkThreshold(_ specification: RunSpecification, population: PopulationRecord) throws {
        guard let threshold = specification.analytics?.threshold, let limit = population.budgetDelta else { return }
        func delta(_ threshold: Int) -> Double {
            let cost = try? SampleAndThreshold.cost(samplingRate: 1e-9, threshold: threshold)
            return Double(specification.rounds) * (cost?.delta ?? 1)
        }
        guard delta(threshold) >= limit else { return }
        let enough = (threshold...200).first { delta($0) < limit }
        throw CoordinationError(
            .unprocessable,
            "delta_too_large",
            "a threshold of \(threshold) has a delta of \(delta(threshold)) over \(specification.rounds) rounds, and the "
                + "budget's is \(limit): set analytics.threshold to \(enough.map(String.init) ?? "more than 200") or more"
        )
    }

    /// Refuses to start TrieHH where the draw would hardly ever give enough votes, or where the budget ends half-way.
    func checkTrieStart(run id: String) throws {
        let run = try runState(id)
        guard run.specification.analytics?.isTrie == true, run.record.state == "created" else { return }
        let plan = try projection(of: run.specification, parameterCount: nil)
        guard plan.roundsThatFit >= run.specification.rounds else {
            throw CoordinationError(
                .conflict,
                "budget_exhausted",
                "the budget admits \(plan.roundsThatFit) of the run's \(run.specification.rounds) rounds, and words are "
                    + "whole after the last one only: lower analytics.epsilon or the number of rounds; nothing was opened"
            )
        }
        guard let threshold = run.specification.analytics?.threshold,
            let rate = run.specification.cohort.samplingRate
        else { return }
        let count = clients.values.count {
            $0.populationId == run.record.populationId && $0.state != "revoked"
        }
        let wanted = max(threshold, run.specification.cohort.minimum)
        guard Double(count) * rate < Double(wanted) else { return }
        throw CoordinationError(
            .conflict,
            "too_few_clients",
            "each of the \(count) clients is drawn with probability \(String(format: "%.3g", rate)), which is what the "
                + "epsilon allows: \(Int(Double(count) * rate)) voters a round, where \(wanted) are needed; that takes "
                + "\(Int((Double(wanted) / rate).rounded(.up))) clients: enrol more, allow a larger epsilon, lower the "
                + "threshold, or count candidates with method histogram"
        )
    }
}

extension RunSpecification {
    /// Standard deviation of the noise on one count after so many versions and reports.
    func countError(version: Int, reports: Int) -> Double {
        guard let analytics else { return 0 }
        let noise = privacy.noiseMultiplier * analytics.sensitivity
        switch privacy.mode {
        case "central": return noise * Double(version).squareRoot()
        case "local": return 2 * noise * Double(reports).squareRoot()
        default: return 0
        }
    }

    /// What clients may send.
    var analyticsAnswer: AnalyticsAnswer? {
        guard let analytics else { return nil }
        if analytics.isTrie { return .vote(placeLimit: analytics.prefixLimit ?? 1) }
        return privacy.mode == "local" ? .noise : .counts(limit: analytics.wordsPerClient ?? 1)
    }
}

extension RunState {
    /// Why a trie is as long as it gets, or `nil`.
    var trieEnd: String? {
        guard specification.analytics?.isTrie == true, let last = versions.last, versions.count >= 2,
            last.sha256 == versions[versions.count - 2].sha256
        else { return nil }
        return "no prefix of \(last.version) characters had enough votes"
    }
}
