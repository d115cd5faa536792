import Foundation
import Tensors
import WireFormat

/// What a new run must be beside the others, and which of their models it builds on.
extension RunTable {
    /// What stands for a run's last version.
    static let latestVersion = "latest"

    /// Refuses a run beyond the limit: each check-in looks at all that have not ended.
    func checkCount(limit: Int) throws(CoordinationError) {
        guard open.count >= limit else { return }
        throw CoordinationError(
            .conflict,
            "too_many_runs",
            "\(open.count) runs have not ended, and limits.open_runs allows no more: cancel those that nobody needs "
                + "(POST /v1/runs/{run}/cancel), or raise the limit"
        )
    }

    /// The specification with the base's version fixed, so that every client of every round gets the same one.
    func resolvingBase(_ specification: RunSpecification) throws(CoordinationError) -> RunSpecification {
        guard let base = specification.model.base else { return specification }
        guard let versions = self[base.run]?.versions,
            let version = base.version.map({ self[base.run]?.version(numbered: $0) }) ?? versions.last
        else {
            throw CoordinationError(
                .unprocessable,
                "base_missing",
                "model.base: run '\(base.run)' has no model version \(base.version.map(String.init) ?? "yet")"
            )
        }
        var resolved = specification
        resolved.model.base?.version = version.version
        return resolved
    }

    /// The version that a specification's model builds on; `nil` if it builds on none.
    func baseVersion(of specification: RunSpecification) -> ModelVersionRecord? {
        guard let base = specification.model.base, let number = base.version else { return nil }
        return self[base.run]?.version(numbered: number)
    }

    /// The base as an assignment names it.
    func baseModel(of specification: RunSpecification) -> AssignmentBody.Model? {
        guard let base = specification.model.base, let version = baseVersion(of: specification) else { return nil }
        return .init(
            version: version.version,
            url: Endpoints.weights(RunReference(base.run), VersionReference(version.version)).target,
            sha256: version.sha256,
            bytes: version.bytes
        )
    }

    /// Whether devices need a version now: the newest two of a run, of which those at work have one, or the base of another run.
    func needsModel(run id: String, version: Int) -> Bool {
        guard let newest = self[id]?.versions.last else { return false }
        return version >= newest.version - 1 || isBase(id, version: version)
    }

    /// Whether a client has ever been assigned in the run, or in one that builds on it, and so may read its models.
    func mayReadModels(client: String, run: String) -> Bool {
        self[run]?.participations[client] != nil || self[run]?.evaluations[client] != nil
            || hasTrainedOn(run, client: client)
    }

    /// The runs that the overview shows, oldest first: those that have not ended, and then ended ones from the newest on.
    func shownInOverview(limit: Int) -> [String] {
        var ids = Array(open.suffix(limit))
        // Past those that have not ended.
        for id in order.reversed().prefix(2 * limit) where ids.count < limit {
            if self[id]?.isOver == true { ids.append(id) }
        }
        return ids.compactMap { id in self[id].map { (createdAt: $0.record.createdAt, id: id) } }
            .sorted { ($0.createdAt, $0.id) < ($1.createdAt, $1.id) }.map(\.id)
    }

    /// How many runs fit on a page with their run files, each of which may be as large as a document: at least one.
    ///
    /// - Parameters:
    ///   - cursor: Where the page begins.
    ///   - limit: How many are asked for.
    ///   - byteLimit: What their stored run files may come to.
    /// - Returns: How many.
    func countOnPage(from cursor: Int, limit: Int, byteLimit: Int) -> Int {
        var room = byteLimit
        let page = order.dropFirst(max(0, cursor)).prefix(limit)
        let fitting = page.prefix { id in
            defer { room -= self[id]?.record.specification.utf8.count ?? 0 }
            return room > 0
        }
        return max(1, fitting.count)
    }

    /// Runs whose clients at work nobody may count, and how many those are.
    var secretWork: (isThere: Bool, count: Int) {
        let secret = open.compactMap { self[$0] }.filter { $0.specification.privacy.hasSecretDraw }
        return (!secret.isEmpty, secret.reduce(0) { $0 + $1.live.count })
    }

    /// How often clients of a population were drawn, by run and number of clients: for outside accountants.
    ///
    /// How often is what an amplified claim keeps secret from readers: its runs are left out.
    ///
    /// - Parameters:
    ///   - population: Its id.
    ///   - place: The first run, among ``openlyDrawn(population:)``.
    ///   - limit: So many runs are looked at.
    /// - Returns: What those give; `nil` where there are no more.
    func drawHistogram(population: String, from place: Int, limit: Int) -> [String: [String: Int]]? {
        let runs = openlyDrawn(population: population).dropFirst(place).prefix(limit)
        guard !runs.isEmpty else { return nil }
        var histogram: [String: [String: Int]] = [:]
        for id in runs {
            guard let run = self[id] else { continue }
            for (count, clients) in run.participationHistogram {
                histogram[id, default: [:]][String(count)] = clients
            }
        }
        return histogram
    }
}

extension RunState {
    /// A new run, and the transaction that makes it.
    ///
    /// - Parameters:
    ///   - specification: The checked specification.
    ///   - population: The id of its population.
    ///   - model: The file of its first version, if it has one.
    ///   - time: When.
    /// - Returns: Both.
    /// - Throws: What the specification cannot be written or read for.
    static func creating(
        _ specification: RunSpecification,
        population: String,
        model: (sha256: String, byteCount: Int)?,
        at time: Date
    ) throws -> (run: RunState, changes: [StoreChange]) {
        let record = RunRecord(
            id: Secrets.identifier("run"),
            populationId: population,
            name: specification.name,
            specification: String(decoding: try WireCoding.encode(specification), as: UTF8.self),
            state: .created,
            createdAt: time
        )
        var changes: [StoreChange] = [
            .run(record), .history(record.id, at: time, state: RunPhase.created, cause: "created by an operator"),
        ]
        if let model {
            changes.append(
                .modelVersion(
                    ModelVersionRecord(
                        runId: record.id,
                        version: 0,
                        sha256: model.sha256,
                        bytes: model.byteCount,
                        createdAt: time
                    )
                )
            )
        }
        return (try RunState(record: record), changes)
    }

    /// A version by its number, or ``RunTable/latestVersion``.
    ///
    /// - Throws: ``CoordinationError`` `not_found`.
    func version(_ word: String) throws(CoordinationError) -> ModelVersionRecord {
        let found =
            word == RunTable.latestVersion
            ? versions.last : Int(word).flatMap { version(numbered: $0) }
        guard let found else {
            throw CoordinationError(.notFound, "not_found", "run '\(record.id)' has no model version '\(word)'")
        }
        return found
    }

    /// The latest attempt at a round that has to be there.
    ///
    /// - Throws: ``CoordinationError`` `not_found`.
    func requiredAttempt(ofRound number: Int) throws(CoordinationError) -> RoundRecord {
        guard let round = lastAttempt(ofRound: number) else {
            throw CoordinationError(.notFound, "not_found", "run '\(record.id)' has no round \(number) yet")
        }
        return round
    }

    /// Refuses initial weights for a run that has others, has started, or makes its own.
    ///
    /// - Returns: The version that is there already, from the same file.
    func checkInitialModel(sha256: String) throws(CoordinationError) -> ModelVersionRecord? {
        guard record.state == .created else {
            throw CoordinationError(.conflict, "run_started", "the initial model can be set before the start only")
        }
        guard specification.model.isExternal else {
            throw CoordinationError(
                .conflict,
                "model_built_in",
                "the run's architecture makes its own first model; use architecture external"
            )
        }
        guard let existing = versions.first else { return nil }
        guard existing.sha256 == sha256 else {
            throw CoordinationError(.conflict, "model_set", "the run has another initial model already")
        }
        return existing
    }

    /// Refuses to start a vote in which hardly any prefix could reach the threshold, or whose budget ends half-way.
    ///
    /// - Parameters:
    ///   - count: Clients that the population has.
    ///   - plan: What the run would cost.
    /// - Throws: ``CoordinationError`` with code `budget_exhausted` or `too_few_clients`.
    func checkTrieStart(clientCount count: Int, _ plan: PrivacyProjection) throws(CoordinationError) {
        guard plan.roundsThatFit >= specification.rounds else {
            throw CoordinationError(
                .conflict,
                "budget_exhausted",
                "the budget admits \(plan.roundsThatFit) of the run's \(specification.rounds) rounds, then its "
                    + "\(plan.endingPart ?? .epsilon) ends, and words are whole after the last one only: "
                    + (plan.endingPart == .delta
                        ? "create it again, with a larger threshold or fewer rounds"
                        : "ask for more noise or a smaller target, or for fewer rounds") + "; nothing was opened"
            )
        }
        let threshold = specification.privacy.threshold ?? 1
        let wanted = max(Int(threshold.rounded(.up)), specification.cohort.minimum)
        guard count < wanted else { return }
        throw CoordinationError(
            .conflict,
            "too_few_clients",
            "the population has \(count) clients, and a prefix needs a noised count of \(threshold) votes in a round, the round "
                + "\(specification.cohort.minimum): enrol \(wanted) or more, allow a larger epsilon, or count candidates with "
                + "method histogram"
        )
    }
}

extension RunSpecification {
    /// Why runs of method `triehh` end.
    static let withdrawnMethod = "method_withdrawn"

    /// Refuses a method that is kept for stored runs only.
    func checkMethod() throws(CoordinationError) {
        guard analytics?.isSampled == true else { return }
        throw CoordinationError(
            .unprocessable,
            Self.withdrawnMethod,
            "method triehh is offered no more: what it promised rested on a draw that the drawn clients know, and does not hold "
                + "against clients that work together. Use method votes, with privacy.target or privacy.noise_multiplier"
        )
    }

    /// Refuses models whose control variates could not be told from their tensors.
    func checkNames(_ layout: ParameterLayout) throws(CoordinationError) {
        guard training.usesControlVariates, let name = ControlVariates.ambiguousName(in: layout) else { return }
        throw CoordinationError(
            .unprocessable,
            "tensor_mismatch",
            "the tensor '\(name)' has a name that scaffold gives to control variates; rename it, or take another algorithm"
        )
    }

    /// Refuses a file that is no model.
    static func checkModel(_ file: SafetensorsFile) throws(CoordinationError) {
        let refusals = file.header.entries.lazy.compactMap {
            ModelTensors.refusal(of: $0.specification.name, dataType: $0.dataType.rawValue)
        }
        if let refusal = file.header.entries.isEmpty ? "the model must hold at least one tensor" : refusals.first {
            throw CoordinationError(.unprocessable, "tensor_mismatch", refusal)
        }
    }

    /// The tensors of an update: the model's, with SCAFFOLD their control variates too, or one vote.
    func uploadLayout(of model: ParameterLayout) -> ParameterLayout {
        if analytics?.isTrie == true { return PrefixTrie.voteLayout }
        return training.usesControlVariates ? ControlVariates.jointLayout(model) : model
    }
}
