import DifferentialPrivacy
import Foundation
import StrictJSON
package import Tensors
package import WireFormat

extension Coordinator {
    /// Stores a checked specification as a new run; with a built-in architecture `initialModel` is its first version.
    ///
    /// The model is written before the coordinator is asked for the run: nobody waits for that.
    package nonisolated func createRun(
        _ specification: RunSpecification,
        initialModel: ParameterVector?
    ) async throws -> RunView {
        // What is refused leaves no file.
        let checked = try await perform { coordinator in
            try coordinator.checkRunCount()
            return try coordinator.checkedRun(specification, initialModel: initialModel).0
        }
        guard let initialModel else { return try await insertRun(checked, stored: nil) }
        let stored = try await DispatchQueue.global(qos: .utility).result { [blobs] in
            try Self.store(initialModel, among: blobs)
        }
        return try await insertRun(checked, stored: stored)
    }

    /// A model's file among the blobs.
    private struct StoredModel: Sendable {
        var sha256: String
        var byteCount: Int
    }

    /// Refuses a run beyond the limit: each check-in looks at all that have not ended.
    private func checkRunCount() throws {
        guard openRuns.count >= configuration.openRunLimit else { return }
        throw CoordinationError(
            .conflict,
            "too_many_runs",
            "\(openRuns.count) runs have not ended, and limits.open_runs allows no more: cancel those that nobody needs "
                + "(POST /v1/runs/{run}/cancel), or raise the limit"
        )
    }

    /// Stores a run that was checked; what may have changed since is looked at again.
    private func insertRun(_ specification: RunSpecification, stored: StoredModel?) throws -> RunView {
        try checkRunCount()
        let population = try populations.record(specification.population)
        try PrivacyBudgets.checkMode(of: specification, population)
        let document = try WireCoding.encode(specification)
        let record = RunRecord(
            id: Secrets.identifier("run"),
            populationId: population.id,
            name: specification.name,
            specification: String(decoding: document, as: UTF8.self),
            state: .created,
            createdAt: now
        )
        var changes: [StoreChange] = [
            .run(record), history(record.id, state: RunPhase.created, cause: "created by an operator"),
        ]
        if let stored {
            changes.append(
                .modelVersion(
                    ModelVersionRecord(
                        runId: record.id,
                        version: 0,
                        sha256: stored.sha256,
                        bytes: stored.byteCount,
                        createdAt: now
                    )
                )
            )
        }
        let state = try RunState(record: record)
        // The transaction's events and its model belong to it.
        runs[record.id] = state
        do {
            try commit(changes)
        } catch {
            runs[record.id] = nil
            throw error
        }
        runOrder.append(record.id)
        if let base = specification.model.base?.run { runsByBase[base, default: []].append(record.id) }
        return try run(record.id)
    }

    /// The specification with its base's version fixed, and its population, when both go together.
    func checkedRun(
        _ specification: RunSpecification,
        initialModel: ParameterVector?
    ) throws -> (RunSpecification, PopulationRecord) {
        // Not where it is read: runs with older names are read too.
        if let problem = NameRule.problem(specification.name) { throw DocumentError("/name", problem) }
        var specification = try resolvingBase(specification)
        let population = try populations.record(specification.population)
        try PrivacyBudgets.checkMode(of: specification, population)
        try checkMethod(specification)
        specification = try budgets.calibrating(
            specification,
            parameterCount: initialModel?.layout.parameterCount,
            population
        )
        if let initialModel { try PrivacyBudgets.checkNoise(of: specification, layout: initialModel.layout) }
        return (specification, population)
    }

    /// Takes the initial weights of a run that has not started.
    package func putInitialModel(run id: String, spoolFile: String, sha256: String) throws -> ModelVersionView {
        let state = try runState(id)
        guard state.record.state == .created else {
            throw CoordinationError(.conflict, "run_started", "the initial model can be set before the start only")
        }
        guard state.specification.model.isExternal else {
            throw CoordinationError(
                .conflict,
                "model_built_in",
                "the run's architecture makes its own first model; use architecture external"
            )
        }
        if let existing = state.versions.first {
            guard existing.sha256 == sha256 else {
                throw CoordinationError(.conflict, "model_set", "the run has another initial model already")
            }
            return view(existing)
        }
        let file = try SafetensorsFile(path: spoolFile)
        let refusals = file.header.entries.lazy.compactMap {
            ModelTensors.refusal(of: $0.specification.name, dataType: $0.dataType.rawValue)
        }
        if let refusal = file.header.entries.isEmpty ? "the model must hold at least one tensor" : refusals.first {
            throw CoordinationError(.unprocessable, "tensor_mismatch", refusal)
        }
        try checkNames(state.specification, layout: file.layout)
        try PrivacyBudgets.checkNoise(of: state.specification, layout: file.layout)
        try blobs.adopt(spoolFile: spoolFile, sha256: sha256)
        let bytes = file.header.dataOffset + file.layout.parameterCount * 4
        let version = ModelVersionRecord(runId: id, version: 0, sha256: sha256, bytes: bytes, createdAt: now)
        try commit([.modelVersion(version)])
        return view(version)
    }

    /// Refuses models whose control variates could not be told from their tensors.
    private func checkNames(_ specification: RunSpecification, layout: ParameterLayout) throws {
        guard specification.training.usesControlVariates, let name = ControlVariates.ambiguousName(in: layout) else {
            return
        }
        throw CoordinationError(
            .unprocessable,
            "tensor_mismatch",
            "the tensor '\(name)' has a name that scaffold gives to control variates; rename it, or take another algorithm"
        )
    }

    /// Beside a model's tensors: libraries that load files for PyTorch ask for `pt`.
    static let modelMetadata = ["format": "pt", "made_by": "martlet"]

    private static func store(_ model: ParameterVector, among blobs: BlobStore) throws -> StoredModel {
        let data = SafetensorsWriter.encode(model, metadata: modelMetadata)
        return StoredModel(sha256: try blobs.put(data), byteCount: data.count)
    }

    /// Runs in the order in which they were made, from a place on.
    ///
    /// Looks at some at a time, so that nobody waits for the whole page.
    package nonisolated func listRuns(from cursor: Int = 0, limit: Int) async throws -> Listing<RunView> {
        try await pages(from: cursor, limit: limit) { coordinator, place, limit in
            let ids = Listing(coordinator.runOrder, from: place, limit: limit)
            return Listing(items: try ids.items.map { try coordinator.run($0) }, next: ids.next)
        }
    }

    /// Gathers a page out of small ones, between which others have their turn.
    nonisolated func pages<Item: Sendable>(
        from cursor: Int,
        limit: Int,
        _ part: @Sendable (isolated Coordinator, _ place: Int, _ limit: Int) throws -> Listing<Item>
    ) async throws -> Listing<Item> {
        var page = Listing<Item>(items: [], next: cursor)
        while let place = page.next, page.items.count < limit {
            let wanted = min(Self.partCount, limit - page.items.count)
            let found = try await perform { try part($0, place, wanted) }
            page = Listing(items: page.items + found.items, next: found.next)
        }
        return page
    }

    /// How many records are looked at in one go.
    static let partCount = 100

    package func run(_ id: String) throws -> RunView {
        let state = try runState(id)
        return RunView(
            id: id,
            name: state.record.name,
            population: state.record.populationId,
            state: state.record.state,
            reason: state.record.reason,
            createdAt: state.record.createdAt.wireTimestamp,
            round: abs(state.round?.number ?? 0),
            committedRounds: max(0, state.versions.count - 1),
            modelVersion: state.versions.last?.version,
            modelSha256: state.versions.last?.sha256,
            epsilon: state.lastEpsilon,
            bestVersion: state.bestVersion,
            waitingFor: waitingFor(state),
            specification: state.specification
        )
    }

    /// Starts a run: the first round opens.
    package func startRun(_ id: String) throws -> RunView {
        guard try !runState(id).versions.isEmpty else {
            throw CoordinationError(
                .conflict,
                "model_missing",
                "upload the initial model first: PUT \(Endpoints.putModel(RunReference(id)).path)"
            )
        }
        try checkTrieStart(run: id)
        // Also a model that another run made.
        try checkNames(runState(id).specification, layout: layout(of: id))
        // A lasting refusal is said before anything changes; a disk that fails is waited for.
        if try runState(id).specification.isPrivate, budgets.trust.alarm != nil { try budgets.trust.requireOpening() }
        do { try drive(run: id, .started) } catch let error as CoordinationError where runs[id]?.record.state == .paused
        {
            throw CoordinationError(
                error.kind,
                error.code,
                "\(error.message). The run is paused now: POST /v1/runs/\(id)/resume goes on when that is mended"
            )
        }
        return try run(id)
    }

    /// Pauses a run: the open round goes on waiting for what it has assigned, but hands out nothing new.
    package func pauseRun(_ id: String) throws -> RunView {
        try drive(run: id, .paused)
        return try run(id)
    }

    package func resumeRun(_ id: String) throws -> RunView {
        try drive(run: id, .resumed)
        return try run(id)
    }

    /// Cancels a run: its open round is abandoned and its reservation is given back.
    ///
    /// A round whose sum is being made ends when the arithmetic has: nothing of it is published, and its cost stays.
    package func cancelRun(_ id: String) throws -> RunView {
        try drive(run: id, .cancelled)
        return try run(id)
    }

    /// Attempts of training rounds, oldest first: of the rounds with these numbers only, and only the `last` of them.
    package nonisolated func rounds(
        run id: String,
        in numbers: Range<Int> = 0..<Int.max,
        last: Int = .max,
        from cursor: Int = 0,
        limit: Int = .max
    ) async throws -> Listing<RoundView> {
        try await pages(from: cursor, limit: limit) { coordinator, place, limit in
            let state = try coordinator.runState(id)
            let found = Listing(state.trainingPlaces(in: numbers).suffix(last), from: place, limit: limit)
            return Listing(items: found.items.map { coordinator.view(state.rounds[$0], of: state) }, next: found.next)
        }
    }

    /// The attempts that published a version, oldest first.
    package nonisolated func committedRounds(
        run id: String,
        from cursor: Int = 0,
        limit: Int = .max
    ) async throws -> Listing<RoundView> {
        try await pages(from: cursor, limit: limit) { coordinator, place, limit in
            let state = try coordinator.runState(id)
            let found = Listing(state.committedPlaces, from: place, limit: limit)
            return Listing(items: found.items.map { coordinator.view(state.rounds[$0], of: state) }, next: found.next)
        }
    }

    /// The evaluation rounds, oldest first; `number` is the version that was measured.
    package nonisolated func evaluations(
        run id: String,
        last: Int = .max,
        from cursor: Int = 0,
        limit: Int = .max
    ) async throws -> Listing<RoundView> {
        try await pages(from: cursor, limit: limit) { coordinator, place, limit in
            let state = try coordinator.runState(id)
            let found = Listing(state.evaluationPlaces.suffix(last), from: place, limit: limit)
            return Listing(items: found.items.map { coordinator.view(state.rounds[$0], of: state) }, next: found.next)
        }
    }

    /// What the run waits for; with the population's size, which may be the reason.
    func waitingFor(_ state: RunState) -> String {
        let present = presentCount(population: state.record.populationId)
        return state.waitingFor(
            now: now,
            clientCount: present,
            newcomerCount: newcomers(of: state, present: present),
            stall: stalls[state.record.id],
            hold: holdReason(state)
        )
    }

    /// Clients of a population that have not been revoked.
    func presentCount(population: String) -> Int { clients.presentCount(population: population) }

    /// Clients that may join the open attempt by the limits on participation; `nil` where there are plainly enough.
    private func newcomers(of state: RunState, present: Int) -> Int? {
        guard let round = state.round, round.phase.isCollecting || round.phase == .abandoned,
            !state.terms(of: round).policy.isDrawn
        else { return nil }
        guard !round.isEvaluation else { return evaluators(of: state, round, present: present) }
        let cohort = state.specification.cohort
        // Whoever never had a part is free; they are counted one by one only where those might be too few.
        let untouched = present - state.participations.count
        guard cohort.maxParticipations > 0 || cohort.minSeparationRounds > 1, untouched < cohort.goal else {
            return nil
        }
        return tally(of: state, round) { coordinator, run, client in
            guard client.populationId == run.record.populationId, client.state != .revoked, let round = run.round
            else { return false }
            switch coordinator.participationRefusal(of: client, run: run, round: round) {
            case .cap, .separation: return false
            default: return !(round.phase.isCollecting && run.members.contains(client.id))
            }
        }
    }

    /// Clients that may still be asked to measure; `nil` where there are plainly enough.
    private func evaluators(of state: RunState, _ round: RoundRecord, present: Int) -> Int? {
        guard state.specification.evaluation.maxParticipations != nil,
            present - state.evaluations.count < state.specification.evaluation.cohortGoal
        else { return nil }
        return tally(of: state, round) { _, run, client in
            client.populationId == run.record.populationId && client.state != .revoked
                && !run.hasMeasuredEnough(client.id) && !run.members.contains(client.id)
        }
    }

    package func round(run id: String, number: Int) throws -> RoundView {
        let state = try runState(id)
        guard let round = state.lastAttempt(ofRound: number) else {
            throw CoordinationError(.notFound, "not_found", "run '\(id)' has no round \(number) yet")
        }
        return view(round, of: state)
    }

    /// The changes of a round, all its attempts; of the run itself for round 0, and of the evaluation of version v for -v.
    ///
    /// Read beside the coordinator: a round may have many.
    package nonisolated func roundHistory(
        run id: String,
        number: Int,
        assignments: Bool = false,
        from cursor: Int = 0,
        limit: Int = .max
    ) async throws -> Listing<HistoryRow> {
        try await requireRound(run: id, number: number)
        var rows = try store.history(
            run: id,
            round: number,
            assignments: assignments,
            from: cursor,
            limit: limit == .max ? limit : limit + 1
        )
        let hasMore = rows.count > limit
        if hasMore { rows.removeLast() }
        return Listing(items: rows, next: hasMore ? cursor + rows.count : nil)
    }

    /// Refuses a run or round that is not known; round 0 is the run itself.
    func requireRound(run id: String, number: Int) throws {
        let state = try runState(id)
        guard number == 0 || state.lastAttempt(ofRound: number) != nil else {
            throw CoordinationError(.notFound, "not_found", "run '\(id)' has no round \(number) yet")
        }
    }

    /// The published versions, oldest first, from a place on.
    package nonisolated func models(
        run id: String,
        from cursor: Int = 0,
        limit: Int = .max
    ) async throws -> Listing<ModelVersionView> {
        try await pages(from: cursor, limit: limit) { coordinator, place, limit in
            let found = Listing(try coordinator.runState(id).versions, from: place, limit: limit)
            return Listing(items: found.items.map(coordinator.view), next: found.next)
        }
    }

    /// What stands for a run's last version.
    package static let latestVersion = "latest"

    /// One version; ``latestVersion`` is the last one.
    package func model(run id: String, version: String) throws -> ModelVersionView {
        let versions = try runState(id).versions
        let found =
            version == Self.latestVersion
            ? versions.last : Int(version).flatMap { versions.indices.contains($0) ? versions[$0] : nil }
        guard let found else {
            throw CoordinationError(.notFound, "not_found", "run '\(id)' has no model version '\(version)'")
        }
        return view(found)
    }

    func runState(_ id: String) throws -> RunState {
        guard let state = runs[id] else { throw CoordinationError(.notFound, "not_found", "no run '\(id)'") }
        return state
    }

    func history(_ run: String, round: Int = 0, attempt: Int = 0, state: some ClosedWord, cause: String) -> StoreChange
    {
        .history(HistoryRow(runId: run, round: round, attempt: attempt, at: now, state: state.rawValue, cause: cause))
    }

    func view(_ version: ModelVersionRecord) -> ModelVersionView {
        let (run, number) = (RunReference(version.runId), VersionReference(version.version))
        return ModelVersionView(
            run: version.runId,
            version: version.version,
            sha256: version.sha256,
            bytes: version.bytes,
            createdAt: version.createdAt.wireTimestamp,
            url: Endpoints.weights(run, number).target,
            optimizerSha256: version.optimizerSha256,
            optimizerUrl: version.optimizerSha256.map { _ in
                Endpoints.optimizerState(run, number).target
            },
            controlSha256: version.controlSha256,
            controlUrl: version.controlSha256.map { _ in
                Endpoints.controlVariate(run, number).target
            },
            clippingNorm: version.clippingNorm,
            metrics: runs[version.runId]?.metrics[version.version],
            isBest: runs[version.runId]?.bestVersion == version.version
        )
    }

    func view(_ round: RoundRecord, of state: RunState) -> RoundView {
        let isCurrent = round == state.round
        return RoundView(
            run: round.runId,
            kind: round.isEvaluation ? .evaluation : RoundKind(of: state.specification.kind),
            number: abs(round.number),
            attempt: round.attempt,
            state: round.phase,
            reason: round.reason,
            goal: state.terms(of: round).goal,
            minimum: state.terms(of: round).minimum,
            assigned: round.assigned,
            accepted: round.accepted,
            rejected: round.rejected,
            failed: round.failed,
            expired: round.expired,
            excluded: round.excluded,
            cappedWeights: round.cappedWeights,
            weightCap: round.weightCap,
            cappedNorms: round.cappedNorms,
            normBound: round.normBound,
            bytesUp: bytesUp(round, of: state),
            bytesDown: bytesDown(round, of: state),
            openedAt: round.openedAt.wireTimestamp,
            deadline: round.phase.isCollecting ? round.deadline.wireTimestamp : nil,
            closedAt: round.closedAt?.wireTimestamp,
            seconds: (round.closedAt ?? now).timeIntervalSince(round.openedAt),
            phaseSeconds: phaseSeconds(round, of: state),
            modelSha256: round.modelSha256,
            epsilon: round.epsilon,
            refusals: state.refusals[round.number] ?? [:],
            metrics: round.phase == .committed ? state.metrics[abs(round.number)] : nil,
            live: isCurrent ? liveStates(of: state) : nil,
            isSecret: state.terms(of: round).isSecret,
            tiers: round.tierTable.enumerated().map {
                TierView(tier: $0.offset, assigned: $0.element[0], accepted: $0.element[1])
            },
            waitingFor: isCurrent ? waitingFor(state) : "nothing: the round is \(round.phase.rawValue)"
        )
    }
}

extension Coordinator {
    private func liveStates(of run: RunState) -> [String: Int] {
        run.atWork.reduce(into: [:]) { counts, id in
            if let state = assignments[id]?.state { counts[state.rawValue, default: 0] += 1 }
        }
    }
}
