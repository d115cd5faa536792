import DifferentialPrivacy
import Foundation
import Logging
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
        let minimum = minimumCount ?? ownMinimum ?? Coordinator.quietCount(error, candidates: candidates.count)
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
}

extension Coordinator {
    /// What the vocabulary of an analytics run's version is made of.
    ///
    /// - Parameters:
    ///   - id: The run.
    ///   - version: A number, or `latest`.
    /// - Returns: The source; `VocabularySource.vocabulary(minimumCount:)` does the work, elsewhere.
    /// - Throws: ``CoordinationError`` `not_found`.
    package func vocabularySource(run id: String, version: String) throws -> VocabularySource {
        let view = try model(run: id, version: version)
        let run = try runState(id)
        let reports = run.rounds.filter { $0.phase == .committed && $0.number <= view.version }.reduce(0) {
            $0 + $1.accepted
        }
        return VocabularySource(
            run: id,
            version: view.version,
            path: blobs.path(sha256: view.sha256),
            specification: run.specification,
            reportCount: reports
        )
    }

    /// A count that the noise of `candidates` unclaimed words reaches with probability 0.05 at most; 1 without noise.
    static func quietCount(_ error: Double, candidates: Int) -> Double {
        // P(N > t σ) ≤ e^(-t²/2) / 2.
        error > 0 ? error * (2 * log(Double(candidates) / 0.1)).squareRoot() : 1
    }

    /// Refuses what is kept for stored runs only.
    func checkMethod(_ specification: RunSpecification) throws {
        guard specification.analytics?.isSampled == true else { return }
        throw CoordinationError(
            .unprocessable,
            Self.withdrawn,
            "method triehh is offered no more: what it promised rested on a draw that the drawn clients know, and does not hold "
                + "against clients that work together. Use method votes, with privacy.target or privacy.noise_multiplier"
        )
    }

    /// Why runs of method `triehh` end.
    static let withdrawn = "method_withdrawn"

    /// Ends runs whose mechanism is offered no more, at start: what they have published stays charged as it was, and no more is.
    func endWithdrawnRuns() throws {
        for id in runOrder {
            guard let run = runs[id], run.specification.analytics?.isSampled == true,
                run.record.state.isOpen
            else { continue }
            let cause =
                "method triehh is offered no more: its promise does not hold against clients that work together. The words that "
                + "were found stay; a new run with method votes finds more"
            logger.warning("A run of a withdrawn method ends", metadata: ["run.id": "\(id)"])
            try drive(run: id, .failed(code: Self.withdrawn, cause: cause))
        }
    }

    /// Refuses to start a vote where hardly any prefix could reach the threshold, or where the budget ends half-way.
    func checkTrieStart(run id: String) throws {
        let run = try runState(id)
        guard run.specification.analytics?.isTrie == true, run.record.state == .created else { return }
        try checkMethod(run.specification)
        let plan = try projection(of: run.specification, parameterCount: nil)
        guard plan.roundsThatFit >= run.specification.rounds else {
            throw CoordinationError(
                .conflict,
                "budget_exhausted",
                "the budget admits \(plan.roundsThatFit) of the run's \(run.specification.rounds) rounds, then its "
                    + "\(plan.endingPart ?? .epsilon) ends, and words are whole after the last one only: "
                    + (plan.endingPart == .delta
                        ? "create it again, with a larger threshold or fewer rounds"
                        : "ask for more noise or a smaller target, or for fewer rounds") + "; nothing was opened"
            )
        }
        let threshold = run.specification.privacy.threshold ?? 1
        let count = presentCount(population: run.record.populationId)
        let wanted = max(Int(threshold.rounded(.up)), run.specification.cohort.minimum)
        guard count < wanted else { return }
        throw CoordinationError(
            .conflict,
            "too_few_clients",
            "the population has \(count) clients, and a prefix needs a noised count of \(threshold) votes in a round, the round "
                + "\(run.specification.cohort.minimum): enrol \(wanted) or more, allow a larger epsilon, or count candidates with "
                + "method histogram"
        )
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

    /// What clients may send.
    var analyticsAnswer: AnalyticsAnswer? {
        guard let analytics else { return nil }
        switch analytics.method {
        case .votes(let prefixLimit), .triehh(_, _, let prefixLimit): return .vote(placeLimit: prefixLimit)
        case .histogram(let wordsPerClient, _):
            return privacy.mode == .local ? .noise : .counts(limit: wordsPerClient)
        }
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
