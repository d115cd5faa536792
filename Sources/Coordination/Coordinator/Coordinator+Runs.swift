import Foundation
package import Tensors
package import WireFormat

/// A run as it is shown.
package struct RunView: Codable, Equatable, Sendable {
    package var id: String
    package var name: String
    package var population: String
    package var state: String
    package var reason: String?
    package var createdAt: String
    /// The round that is open, or the last one; 0 before the first.
    package var round: Int
    package var committedRounds: Int
    package var modelVersion: Int?
    package var modelSha256: String?
    package var epsilon: Double?
    /// The version to take: the best by the rule to stop, or by what operators or clients measured.
    package var bestVersion: Int?
    package var waitingFor: String
    package var specification: RunSpecification
}

/// A round attempt as it is shown.
package struct RoundView: Codable, Equatable, Sendable {
    package var run: String
    /// `training`, `analytics`, or `evaluation`: then the number is the version that is measured.
    package var kind: String
    package var number: Int
    package var attempt: Int
    package var state: String
    package var reason: String?
    package var goal: Int
    package var minimum: Int
    package var assigned: Int
    package var accepted: Int
    package var rejected: Int
    package var failed: Int
    package var expired: Int
    /// Accepted updates that stood out and did not count.
    package var excluded: Int
    package var bytesUp: Int
    /// Bytes of models that were sent while the attempt was open; `nil` where an older server did not count.
    package var bytesDown: Int?
    package var openedAt: String
    package var deadline: String?
    package var closedAt: String?
    package var seconds: Double
    /// By phase: `selecting`, `reporting`, `aggregating`.
    package var phaseSeconds: [String: Double]
    package var modelSha256: String?
    package var epsilon: Double?
    /// Updates refused and clients failed, by code.
    package var refusals: [String: Int]
    /// What was measured of the model that the round published, by source and name.
    package var metrics: [String: [String: Double]]?
    /// The open attempt's assignments that may still deliver, by state.
    package var live: [String: Int]?
    /// Shares of the tiers of speed, slowest first; empty where the run has none.
    package var tiers: [TierView]
    package var waitingFor: String
}

/// What one tier of speed had of a round.
package struct TierView: Codable, Equatable, Sendable {
    package var tier: Int
    package var assigned: Int
    package var accepted: Int
}

/// A published model version as it is shown.
package struct ModelVersionView: Codable, Equatable, Sendable {
    package var run: String
    package var version: Int
    package var sha256: String
    package var bytes: Int
    package var createdAt: String
    package var url: String
    /// What the server's optimiser remembers after this version.
    package var optimizerSha256: String?
    package var optimizerUrl: String?
    /// The server's control variate (SCAFFOLD).
    package var controlSha256: String?
    package var controlUrl: String?
    /// C of the round that starts from it, where the clipping norm follows a quantile.
    package var clippingNorm: Double?
    /// What was measured of it, by source and name.
    package var metrics: [String: [String: Double]]?
    /// Whether it is the best version by what was measured.
    package var isBest = false
}

extension Coordinator {
    /// Stores a checked specification as a new run; with a built-in architecture `initialModel` is its first version.
    package func createRun(_ specification: RunSpecification, initialModel: ParameterVector?) throws -> RunView {
        let (specification, population) = try checkedRun(specification, initialModel: initialModel)
        let document = try WireCoding.encode(specification)
        let record = RunRecord(
            id: Secrets.identifier("run"),
            populationId: population.id,
            name: specification.name,
            specification: String(decoding: document, as: UTF8.self),
            state: "created",
            createdAt: now
        )
        var changes: [StoreChange] = [
            .run(record), history(record.id, state: "created", cause: "created by an operator"),
        ]
        if let initialModel {
            changes.append(.modelVersion(try store(initialModel, run: record.id, version: 0)))
        }
        runs[record.id] = try RunState(record: record)
        do {
            try commit(changes)
        } catch {
            runs[record.id] = nil
            throw error
        }
        runOrder.append(record.id)
        return try run(record.id)
    }

    /// The specification with its base's version fixed, and its population, when both go together.
    func checkedRun(
        _ specification: RunSpecification,
        initialModel: ParameterVector?
    ) throws -> (RunSpecification, PopulationRecord) {
        var specification = try resolvingBase(specification)
        let population = try populationRecord(specification.population)
        try checkPrivacyMode(specification, population: population)
        try checkThreshold(specification, population: population)
        if let delta = population.budgetDelta {
            do {
                specification = try PrivacyCalibration.resolve(
                    specification,
                    parameterCount: initialModel?.layout.parameterCount,
                    delta: delta
                )
            } catch {
                throw CoordinationError(.unprocessable, "privacy_invalid", "the target cannot be met: \(error)")
            }
        }
        if let initialModel { try checkNoiseDimension(specification, layout: initialModel.layout) }
        return (specification, population)
    }

    private func checkPrivacyMode(_ specification: RunSpecification, population: PopulationRecord) throws {
        let mode = specification.privacy.mode
        guard mode == "none" || population.budgetEpsilon != nil else {
            throw CoordinationError(
                .unprocessable,
                "population_without_budget",
                "mode \(mode) needs a population with a privacy budget; '\(population.name)' has none"
            )
        }
        guard mode != "none" || population.budgetEpsilon == nil else {
            throw CoordinationError(
                .unprocessable,
                "budget_requires_privacy",
                "'\(population.name)' has a privacy budget, and a run without privacy would void it: set privacy.mode"
            )
        }
    }

    /// Takes the initial weights of a run that has not started.
    package func putInitialModel(run id: String, spoolFile: String, sha256: String) throws -> ModelVersionView {
        let state = try runState(id)
        guard state.record.state == "created" else {
            throw CoordinationError(.conflict, "run_started", "the initial model can be set before the start only")
        }
        guard state.specification.model.architecture == "external" else {
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
        guard !file.header.entries.isEmpty, file.header.entries.allSatisfy({ $0.dataType == .float32 }) else {
            throw CoordinationError(
                .unprocessable,
                "tensor_mismatch",
                "the model must hold at least one tensor, all of them F32"
            )
        }
        try checkNoiseDimension(state.specification, layout: file.layout)
        try blobs.adopt(spoolFile: spoolFile, sha256: sha256)
        let bytes = file.header.dataOffset + file.layout.parameterCount * 4
        let version = ModelVersionRecord(runId: id, version: 0, sha256: sha256, bytes: bytes, createdAt: now)
        try commit([.modelVersion(version)])
        return view(version)
    }

    func store(_ model: ParameterVector, run: String, version: Int) throws -> ModelVersionRecord {
        let data = SafetensorsWriter.encode(model, metadata: ["format": "martlet"])
        let sha256 = try blobs.put(data)
        return ModelVersionRecord(runId: run, version: version, sha256: sha256, bytes: data.count, createdAt: now)
    }

    package func listRuns() throws -> [RunView] { try runOrder.map { try run($0) } }

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
            epsilon: state.rounds.last(where: { $0.phase == .committed })?.epsilon,
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
                "upload the initial model first: PUT /v1/runs/\(id)/model"
            )
        }
        try checkTrieStart(run: id)
        try drive(run: id, .started)
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
    package func rounds(run id: String, in numbers: Range<Int> = 0..<Int.max, last: Int = .max) throws -> [RoundView] {
        let state = try runState(id)
        return state.rounds.filter { !$0.isEvaluation && numbers.contains($0.number) }.suffix(last)
            .map { view($0, of: state) }
    }

    /// The evaluation rounds, oldest first; `number` is the version that was measured.
    package func evaluations(run id: String, last: Int = .max) throws -> [RoundView] {
        let state = try runState(id)
        return state.rounds.filter(\.isEvaluation).suffix(last).map { view($0, of: state) }
    }

    /// What the run waits for; with the population's size, which may be the reason.
    func waitingFor(_ state: RunState) -> String {
        let present = presentCount(population: state.record.populationId)
        return state.waitingFor(now: now, clientCount: present, newcomerCount: newcomers(of: state, present: present))
    }

    /// Clients of a population that have not been revoked.
    func presentCount(population: String) -> Int {
        (clientStateCounts[population] ?? [:]).reduce(0) { $0 + ($1.key == "revoked" ? 0 : $1.value) }
    }

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
        return countingRarely(state, round) { client in
            guard client.populationId == state.record.populationId, client.state != "revoked" else { return false }
            switch refusal(of: client, run: state) {
            case .cap, .separation: return false
            default: return !(round.phase.isCollecting && state.members.contains(client.id))
            }
        }
    }

    /// Clients that may still be asked to measure; `nil` where there are plainly enough.
    private func evaluators(of state: RunState, _ round: RoundRecord, present: Int) -> Int? {
        guard state.specification.evaluation.maxParticipations != nil,
            present - state.evaluations.count < state.specification.evaluation.cohortGoal
        else { return nil }
        return countingRarely(state, round) { client in
            client.populationId == state.record.populationId && client.state != "revoked"
                && !state.hasMeasuredEnough(client.id) && !state.members.contains(client.id)
        }
    }

    /// Counts clients one by one, in the same attempt only so often that it takes a fiftieth of the time where they are many.
    private func countingRarely(_ state: RunState, _ round: RoundRecord, _ isOne: (ClientRecord) -> Bool) -> Int {
        let start = ContinuousClock.now
        let attempt = [round.number, round.attempt]
        if let known = newcomerCounts[state.record.id], known.attempt == attempt, start < known.until {
            return known.count
        }
        let count = clients.values.count(where: isOne)
        if clients.count > Self.manyClients {
            let end = ContinuousClock.now
            newcomerCounts[state.record.id] = (attempt, end.advanced(by: start.duration(to: end) * 50), count)
        }
        return count
    }

    /// From how many clients on counting them one by one is dear.
    static let manyClients = 10_000

    package func round(run id: String, number: Int) throws -> RoundView {
        let state = try runState(id)
        guard let round = state.rounds.last(where: { $0.number == number }) else {
            throw CoordinationError(.notFound, "not_found", "run '\(id)' has no round \(number) yet")
        }
        return view(round, of: state)
    }

    /// The changes of a round, all its attempts; of the run itself for round 0, and of the evaluation of version v for -v.
    package func roundHistory(run id: String, number: Int, assignments: Bool = false) throws -> [HistoryRow] {
        if number != 0 { _ = try round(run: id, number: number) } else { _ = try runState(id) }
        return try store.history(run: id, round: number, assignments: assignments)
    }

    package func models(run id: String) throws -> [ModelVersionView] { try runState(id).versions.map(view) }

    /// One version; `latest` is the last one.
    package func model(run id: String, version: String) throws -> ModelVersionView {
        let versions = try runState(id).versions
        let found =
            version == "latest"
            ? versions.last : Int(version).flatMap { number in versions.first { $0.version == number } }
        guard let found else {
            throw CoordinationError(.notFound, "not_found", "run '\(id)' has no model version '\(version)'")
        }
        return view(found)
    }

    func runState(_ id: String) throws -> RunState {
        guard let state = runs[id] else { throw CoordinationError(.notFound, "not_found", "no run '\(id)'") }
        return state
    }

    func history(_ run: String, round: Int = 0, attempt: Int = 0, state: String, cause: String) -> StoreChange {
        .history(HistoryRow(runId: run, round: round, attempt: attempt, at: now, state: state, cause: cause))
    }

    func view(_ version: ModelVersionRecord) -> ModelVersionView {
        ModelVersionView(
            run: version.runId,
            version: version.version,
            sha256: version.sha256,
            bytes: version.bytes,
            createdAt: version.createdAt.wireTimestamp,
            url: "/v1/runs/\(version.runId)/models/\(version.version)/weights",
            optimizerSha256: version.optimizerSha256,
            optimizerUrl: version.optimizerSha256.map { _ in
                "/v1/runs/\(version.runId)/models/\(version.version)/optimizer"
            },
            controlSha256: version.controlSha256,
            controlUrl: version.controlSha256.map { _ in
                "/v1/runs/\(version.runId)/models/\(version.version)/control"
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
            kind: round.isEvaluation ? "evaluation" : state.specification.kind,
            number: abs(round.number),
            attempt: round.attempt,
            state: round.phase.rawValue,
            reason: round.reason,
            goal: state.terms(of: round).goal,
            minimum: state.terms(of: round).minimum,
            assigned: round.assigned,
            accepted: round.accepted,
            rejected: round.rejected,
            failed: round.failed,
            expired: round.expired,
            excluded: round.excluded,
            bytesUp: round.bytesUp,
            bytesDown: round.bytesDown,
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
