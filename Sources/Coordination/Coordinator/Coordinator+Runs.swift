package import Foundation
import Logging
import SecureAggregation
import StrictJSON
package import Tensors
import UpdateCompression
package import WireFormat

/// Runs and their models: how they are made, started and ended, and how they are shown.
extension Coordinator {
    // MARK: - Making

    /// Stores a checked specification as a new run; with a built-in architecture `initialModel` is its first version.
    ///
    /// The model is written before the coordinator is asked for the run: nobody waits for that.
    ///
    /// - Parameters:
    ///   - specification: The run's.
    ///   - initialModel: Its first version.
    ///   - isAllowed: Is asked in the step that stores the run; what it throws is thrown.
    /// - Returns: The run.
    /// - Throws: ``CoordinationError``; `DocumentError`.
    package nonisolated func createRun(
        _ specification: RunSpecification,
        initialModel: ParameterVector?,
        isAllowed: @Sendable (isolated Coordinator) throws -> Void = { _ in }
    ) async throws -> RunView {
        // What is refused leaves no file.
        try await perform { try $0.runs.checkCount(limit: $0.configuration.openRunLimit) }
        var checked = try await checkedRun(specification, initialModel: initialModel)
        let stored = try await writeModel(initialModel)
        for _ in 0..<Self.calibrationTries {
            let found = checked
            let run = try await perform { coordinator in
                try isAllowed(coordinator)
                return try coordinator.insertRun(found, model: stored)
            }
            if let run { return run }
            checked = try await checkedRun(specification, initialModel: initialModel)
        }
        throw CoordinationError(
            .unavailable,
            "claims_busy",
            "other runs were charged each time that this one's noise had been computed; send it again later"
        )
    }

    /// How often a run's noise is computed again because others were charged meanwhile.
    private static let calibrationTries = 4

    /// Makes a run's first version a file.
    private nonisolated func writeModel(_ model: ParameterVector?) async throws -> (sha256: String, byteCount: Int)? {
        guard let model else { return nil }
        return try await DispatchQueue.global(qos: .utility).result { [modelFiles] in try modelFiles.store(model) }
    }

    /// Stores a run that was checked; what may have changed since is looked at again.
    ///
    /// - Returns: The run; `nil` where its noise has to be computed again.
    private func insertRun(_ checked: CheckedRun, model: (sha256: String, byteCount: Int)?) throws -> RunView? {
        let specification = checked.specification
        try runs.checkCount(limit: configuration.openRunLimit)
        let population = try populations.record(specification.population)
        try PrivacyBudgets.checkMode(of: specification, population)
        guard checked.basis.calibratesLike(budgets.basis(of: population), checked.asked) else { return nil }
        let (run, changes) = try RunState.creating(specification, population: population.id, model: model, at: now)
        // The transaction's events and its model belong to it.
        runs.prepare(run)
        do {
            try commit(changes)
        } catch {
            runs.withdraw(run.record.id)
            throw error
        }
        runs.enlist(run.record.id)
        return try self.run(run.record.id)
    }

    /// A run that may be made.
    private struct CheckedRun: Sendable {
        /// As it was asked for, its base's version fixed.
        var asked: RunSpecification
        /// The same with its noise.
        var specification: RunSpecification
        /// What the noise was computed from.
        var basis: PlanBasis
    }

    /// Checks a specification and computes its noise, beside the coordinator.
    private nonisolated func checkedRun(
        _ specification: RunSpecification,
        initialModel: ParameterVector?
    ) async throws -> CheckedRun {
        let (asked, basis) = try await perform { try $0.basis(of: specification) }
        if let layout = initialModel?.layout { try asked.checkProtection(of: layout) }
        guard asked.privacy.mode != .none else { return CheckedRun(asked: asked, specification: asked, basis: basis) }
        let layout = initialModel?.layout
        let resolved = try await arithmeticDesk.compute {
            let resolved = try basis.calibrating(asked, parameterCount: layout?.parameterCount)
            if let layout {
                try PrivacyBudgets.checkNoise(of: resolved, layout: layout)
                try resolved.checkProtection(of: layout)
            }
            return resolved
        }
        return CheckedRun(asked: asked, specification: resolved, basis: basis)
    }

    /// The specification with its base's version fixed, and what its noise is computed from, when both go together.
    private func basis(of specification: RunSpecification) throws -> (RunSpecification, PlanBasis) {
        // Not where it is read: runs with older names are read too.
        if let problem = NameRule.problem(specification.name) { throw DocumentError("/name", problem) }
        let resolved = try runs.resolvingBase(specification)
        let population = try populations.record(resolved.population)
        try PrivacyBudgets.checkMode(of: resolved, population)
        try resolved.checkMethod()
        if resolved.isProtected, configuration.helper == nil {
            throw CoordinationError(
                .unprocessable,
                "helper_missing",
                "protection helper needs a helper, and this server names none: set helper_url, helper_token_file and helper_key"
            )
        }
        return (resolved, budgets.basis(of: population))
    }

    /// Checks a specification as ``createRun(_:initialModel:isAllowed:)`` does, stores nothing, and says what the run would cost.
    ///
    /// - Parameters:
    ///   - specification: The run's.
    ///   - initialModel: Its first version.
    ///   - isAllowed: Is asked in the step that gives the answer; what it throws is thrown.
    /// - Returns: The plan.
    /// - Throws: ``CoordinationError``; `DocumentError`.
    package nonisolated func planRun(
        _ specification: RunSpecification,
        initialModel: ParameterVector?,
        isAllowed: @Sendable (isolated Coordinator) throws -> Void = { _ in }
    ) async throws -> RunPlan {
        let checked = try await checkedRun(specification, initialModel: initialModel)
        let count = initialModel?.layout.parameterCount
        var projection: PrivacyProjection?
        var readers: PrivacyProjection?
        if checked.specification.privacy.mode != .none {
            projection = try await arithmeticDesk.compute {
                try checked.basis.projection(of: checked.specification, parameterCount: count)
            }
            if checked.specification.isProtected {
                var noised = checked.specification
                noised.privacy.noiseMultiplier *= 2.0.squareRoot()
                let both = noised
                readers = try await arithmeticDesk.compute {
                    try checked.basis.projection(of: both, parameterCount: count)
                }
            }
        }
        let byteCount = initialModel.map {
            SafetensorsWriter.header(for: $0.layout, metadata: [:]).count + 4 * $0.values.count
        }
        let clientCount = try await perform { coordinator in
            try isAllowed(coordinator)
            return coordinator.clients.presentCount(population: checked.basis.population.id)
        }
        var plan = RunPlan(
            checked.specification,
            parameterCount: count,
            modelByteCount: byteCount,
            clientCount: clientCount,
            projection
        )
        if let count,
            let protection = try ProtectionPlan(
                checked.specification,
                parameterCount: count,
                projection,
                readers: readers
            )
        {
            plan.setProtection(protection)
        }
        return plan
    }

    /// Refuses a base whose tensors are not those that the model builds on, before any client meets them.
    ///
    /// - Throws: `DocumentError` at `/model/base` with the first tensor that is wrong; ``CoordinationError``.
    package func checkBase(of specification: RunSpecification, against wanted: ParameterLayout) throws {
        let resolved = try runs.resolvingBase(specification)
        guard let base = resolved.model.base, let version = runs.baseVersion(of: resolved) else { return }
        let actual = try modelFiles.layout(of: version)
        if let reason = wanted.mismatch(of: actual, "version \(version.version) of run \(base.run)") {
            throw DocumentError("/model/base", reason)
        }
    }

    /// Takes the initial weights of a run that has not started.
    package func putInitialModel(run id: String, spoolFile: String, sha256: String) throws -> ModelVersionView {
        let run = try runs.run(id)
        if let existing = try run.checkInitialModel(sha256: sha256) { return run.view(existing) }
        let file = try SafetensorsFile(path: spoolFile)
        try RunSpecification.checkModel(file)
        try run.specification.checkNames(file.layout)
        try PrivacyBudgets.checkNoise(of: run.specification, layout: file.layout)
        try run.specification.checkProtection(of: file.layout)
        try blobs.adopt(spoolFile: spoolFile, sha256: sha256)
        let bytes = file.header.dataOffset + file.layout.parameterCount * 4
        let version = ModelVersionRecord(runId: id, version: 0, sha256: sha256, bytes: bytes, createdAt: now)
        try commit([.modelVersion(version)])
        return try runs.run(id).view(version)
    }

    // MARK: - Starting and ending

    /// Computes, beside the coordinator, what the start of a run asks for; `startRun` computes itself what is not there, or has changed
    /// since.
    package nonisolated func prepareStart(run id: String) async throws {
        let found = try await perform { coordinator -> (RunSpecification, PlanBasis)? in
            guard let run = coordinator.runs[id], run.specification.analytics?.isTrie == true,
                run.record.state == .created, !run.versions.isEmpty
            else { return nil }
            try run.specification.checkMethod()
            let population = try coordinator.populations.record(run.record.populationId)
            return (run.specification, coordinator.budgets.basis(of: population))
        }
        guard let (specification, basis) = found else { return }
        let projection = try await arithmeticDesk.compute {
            try basis.projection(of: specification, parameterCount: nil)
        }
        try await perform { coordinator in
            if coordinator.runs[id]?.record.state == .created {
                coordinator.budgets.startProjections[id] = (basis, projection)
            }
        }
    }

    /// What a run would cost that is about to start.
    private func startProjection(of run: RunState) throws -> PrivacyProjection {
        let basis = budgets.basis(of: try populations.record(run.record.populationId))
        if let known = budgets.startProjections.removeValue(forKey: run.record.id), known.basis.isLike(basis) {
            return known.projection
        }
        return try basis.projection(of: run.specification, parameterCount: nil)
    }

    /// Starts a run: the first round opens.
    package func startRun(_ id: String) throws -> RunView {
        let run = try runs.run(id)
        guard !run.versions.isEmpty else {
            throw CoordinationError(
                .conflict,
                "model_missing",
                "upload the initial model first: PUT \(Endpoints.putModel(RunReference(id)).path)"
            )
        }
        if run.specification.analytics?.isTrie == true, run.record.state == .created {
            try run.specification.checkMethod()
            try run.checkTrieStart(
                clientCount: clients.presentCount(population: run.record.populationId),
                startProjection(of: run)
            )
        }
        // Also a model that another run made.
        try run.specification.checkNames(layout(of: id))
        // A lasting refusal is said before anything changes; a disk that fails is waited for.
        if run.specification.isPrivate, budgets.trust.alarm != nil { try budgets.trust.requireOpening() }
        do {
            return try changeRun(id, .started)
        } catch let error as CoordinationError where runs[id]?.record.state == .paused {
            throw CoordinationError(
                error.kind,
                error.code,
                "\(error.message). The run is paused now: POST /v1/runs/\(id)/resume goes on when that is mended"
            )
        }
    }

    /// Pauses a run: the open round goes on waiting for what it has assigned, but hands out nothing new.
    package func pauseRun(_ id: String) throws -> RunView { try changeRun(id, .paused) }

    package func resumeRun(_ id: String) throws -> RunView { try changeRun(id, .resumed) }

    /// Cancels a run: its open round is abandoned and its reservation is given back.
    ///
    /// A round whose sum is being made ends when the arithmetic has: nothing of it is published, and its cost stays.
    package func cancelRun(_ id: String) throws -> RunView { try changeRun(id, .cancelled) }

    private func changeRun(_ id: String, _ event: RunEvent) throws -> RunView {
        try drive(run: id, event)
        return try run(id)
    }

    // MARK: - Layouts

    /// Learns the tensors of runs whose first model file was being hashed.
    func readMissingLayouts() {
        for id in runs.open where runs[id]?.layout == nil && runs[id]?.versions.isEmpty == false {
            guard (try? layout(of: id)) != nil else { continue }
            checkSettings(run: id)
        }
    }

    /// The layout that the run's models have.
    ///
    /// - Throws: ``CoordinationError`` with code `model_missing`, or as `ModelFiles.layout` throws.
    package func layout(of id: String) throws -> ParameterLayout {
        if let layout = runs[id]?.layout { return layout }
        guard let version = runs[id]?.versions.first else {
            throw CoordinationError(
                .conflict,
                "model_missing",
                "the run has no model yet: upload it, then start the run"
            )
        }
        let layout = try modelFiles.layout(of: version, isNeeded: runs[id]?.isOver == false)
        runs[id]?.layout = layout
        return layout
    }

    /// The tensors of an update: the model's, with SCAFFOLD their control variates too, or one vote.
    package func uploadLayout(of id: String) throws -> ParameterLayout {
        if runs[id]?.specification.analytics?.isTrie == true { return PrefixTrie.voteLayout }
        let layout = try layout(of: id)
        return try runs.run(id).specification.uploadLayout(of: layout)
    }

    /// The size that an update must have, or measurements that are published with noise; `nil` if any will do.
    func plannedByteCount(of record: AssignmentRecord) -> Int? {
        guard let specification = runs[record.runId]?.specification,
            specification.isPrivate || specification.isProtected,
            !record.isEvaluation || specification.hasPrivateEvaluation
        else { return nil }
        let count =
            record.isEvaluation ? EvaluationResult.privateByteCount : plannedByteCount(ofRun: record.runId)
        return count > 0 ? count : nil
    }

    /// The size that every client's update has; 0 if the run has no model yet.
    func plannedByteCount(ofRun id: String) -> Int {
        if let known = runs[id]?.plannedByteCount { return known }
        guard let layout = try? uploadLayout(of: id), let base = runs[id]?.versions.first?.sha256,
            let specification = runs[id]?.specification
        else { return 0 }
        if specification.isProtected {
            let count = specification.maskedUpdateFile(coordinateCount: layout.parameterCount)?.byteCount ?? 0
            runs[id]?.plannedByteCount = count
            return count
        }
        let metadata = UpdateMetadata.planned(specification, baseSHA256: base)
        let encoder = UpdateEncoder(
            specification.training.encoding,
            metadata: metadata,
            seed: 0,
            hasFixedLength: true
        )
        let count = encoder.byteCount(of: layout)
        runs[id]?.plannedByteCount = count
        return count
    }

    /// Holds the settings against an open run: limits that are lower than they were when it was made stop it.
    func checkSettings(run id: String) {
        guard let run = runs[id], !run.isOver, run.specification.analytics == nil, let layout = try? layout(of: id)
        else { return }
        let needed = SettingsCheck.updateByteCount(run.specification, layout: layout)
        runs[id]?.updateByteCount = needed
        guard needed > configuration.modelByteLimit else { return }
        logger.warning(
            "limits.model_bytes is less than an update of an open run: all its clients will be refused",
            metadata: ["run.id": "\(id)", "needed": "\(needed)", "limit": "\(configuration.modelByteLimit)"]
        )
    }

    // MARK: - Views

    /// How far a run is now; everything that is shown of it comes from here.
    func progress(of run: RunState) -> RunProgress {
        let present = clients.presentCount(population: run.record.populationId)
        return RunProgress(
            run: run,
            time: now,
            waitingFor: run.waitingFor(
                now: now,
                clientCount: present,
                newcomerCount: newcomers(of: run, present: present),
                stall: publication.stalls[run.record.id],
                hold: holdReason(run) ?? helperReason(run)
            ),
            plannedByteCount: { self.plannedByteCount(ofRun: run.record.id) }
        )
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
            page.items += found.items
            page.next = found.next
        }
        return page
    }

    /// How many records are looked at in one go.
    static let partCount = 100
    /// A page of runs ends with the run file that reaches so many bytes.
    static let listedRunFileBytes = 4 << 20

    package func run(_ id: String) throws -> RunView { progress(of: try runs.run(id)).view }

    /// Runs in the order in which they were made, from a place on; fewer than asked for where their run files are large.
    package nonisolated func listRuns(from cursor: Int = 0, limit: Int) async throws -> Listing<RunView> {
        let count = try await perform {
            $0.runs.countOnPage(from: cursor, limit: limit, byteLimit: Self.listedRunFileBytes)
        }
        return try await pages(from: cursor, limit: min(limit, count)) { coordinator, place, limit in
            let ids = Listing(coordinator.runs.order, from: place, limit: limit)
            return Listing(items: try ids.items.map { try coordinator.run($0) }, next: ids.next)
        }
    }

    /// Attempts of training rounds, oldest first: of the rounds with these numbers only, and only the `last` of them.
    package nonisolated func rounds(
        run id: String,
        in numbers: Range<Int> = 0..<Int.max,
        last: Int = .max,
        from cursor: Int = 0,
        limit: Int = .max
    ) async throws -> Listing<RoundView> {
        try await attempts(run: id, from: cursor, limit: limit) { $0.trainingPlaces(in: numbers).suffix(last) }
    }

    /// The attempts that published a version, oldest first.
    package nonisolated func committedRounds(
        run id: String,
        from cursor: Int = 0,
        limit: Int = .max
    ) async throws -> Listing<RoundView> {
        try await attempts(run: id, from: cursor, limit: limit) { $0.committedPlaces[...] }
    }

    /// The evaluation rounds, oldest first; `number` is the version that was measured.
    package nonisolated func evaluations(
        run id: String,
        last: Int = .max,
        from cursor: Int = 0,
        limit: Int = .max
    ) async throws -> Listing<RoundView> {
        try await attempts(run: id, from: cursor, limit: limit) { $0.evaluationPlaces.suffix(last) }
    }

    private nonisolated func attempts(
        run id: String,
        from cursor: Int,
        limit: Int,
        _ places: @escaping @Sendable (RunState) -> ArraySlice<Int>
    ) async throws -> Listing<RoundView> {
        try await pages(from: cursor, limit: limit) { coordinator, place, limit in
            let progress = coordinator.progress(of: try coordinator.runs.run(id))
            let found = Listing(places(progress.run), from: place, limit: limit)
            let rounds = found.items.map { progress.view(progress.run.rounds[$0], coordinator.runs) }
            return Listing(items: rounds, next: found.next)
        }
    }

    package func round(run id: String, number: Int) throws -> RoundView {
        let run = try runs.run(id)
        return progress(of: run).view(try run.requiredAttempt(ofRound: number), runs)
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
    private func requireRound(run id: String, number: Int) throws {
        let run = try runs.run(id)
        if number != 0 { _ = try run.requiredAttempt(ofRound: number) }
    }

    /// How far the updates of a round stood out, the longest first; empty if the run does not ask for scores.
    package nonisolated func updateScores(run id: String, round number: Int) async throws -> [UpdateScoreView] {
        try await requireRound(run: id, number: number)
        return try store.updateScores(run: id, round: number).map(UpdateScoreView.init)
    }

    /// The published versions, oldest first, from a place on.
    package nonisolated func models(
        run id: String,
        from cursor: Int = 0,
        limit: Int = .max
    ) async throws -> Listing<ModelVersionView> {
        try await pages(from: cursor, limit: limit) { coordinator, place, limit in
            let run = try coordinator.runs.run(id)
            let found = Listing(run.versions, from: place, limit: limit)
            return Listing(items: found.items.map(run.view), next: found.next)
        }
    }

    /// What stands for a run's last version.
    package static var latestVersion: String { RunTable.latestVersion }

    /// One version; ``latestVersion`` is the last one.
    package func model(run id: String, version: String) throws -> ModelVersionView {
        let run = try runs.run(id)
        return run.view(try run.version(version))
    }

    /// Stores what somebody measured of a model version; a later report of the same source replaces it.
    package func reportMetrics(run id: String, version: String, _ report: MetricsReport) throws -> ModelVersionView {
        let run = try runs.run(id)
        let version = try run.version(version)
        let record = try run.metricsRecord(report.metrics, version: version.version, source: report.source, at: now)
        try commit([.modelMetrics(record)])
        return try runs.run(id).view(version)
    }

    /// Counts what was sent of a model in the attempt that is open; it is stored with the attempt's next change.
    package func noteDownload(run id: String, version: Int, byteCount: Int) {
        runs[id]?.countDownload(version: version, byteCount: byteCount)
    }

    /// The base of a model as an assignment names it.
    package func baseModel(of specification: RunSpecification) -> AssignmentBody.Model? {
        runs.baseModel(of: specification)
    }

    /// The tokeniser of a run as JSON.
    ///
    /// - Throws: ``CoordinationError`` `not_found` if the run has none of its own.
    package func tokenizer(run id: String) throws -> (document: Data, sha256: String) {
        guard let tokenizer = try runs.run(id).longTokenizer else {
            throw CoordinationError(.notFound, "not_found", "run '\(id)' has no tokenizer that is kept apart")
        }
        return tokenizer
    }

    /// Whether devices need a version now; see `RunTable`.
    package func needsModel(run id: String, version: Int) -> Bool { runs.needsModel(run: id, version: version) }

    /// Whether a client may read a run's models; see `RunTable`.
    package func mayReadModels(client: String, run: String) -> Bool { runs.mayReadModels(client: client, run: run) }

    /// What the vocabulary of an analytics run's version is made of.
    ///
    /// - Parameters:
    ///   - id: The run.
    ///   - version: A number, or `latest`.
    /// - Returns: The source; `VocabularySource.vocabulary(minimumCount:)` does the work, elsewhere.
    /// - Throws: ``CoordinationError`` `not_found`.
    package func vocabularySource(run id: String, version: String) throws -> VocabularySource {
        let run = try runs.run(id)
        let found = try run.version(version)
        return VocabularySource(
            run: id,
            version: found.version,
            path: blobs.path(sha256: found.sha256),
            specification: run.specification,
            reportCount: run.acceptedCount(through: found.version)
        )
    }

    /// A run's curves, at most `points` points each.
    ///
    /// The coordinator gives the attempts in parts; what is computed of them holds up nobody.
    package nonisolated func curves(run id: String, points limit: Int) async throws -> CurvesView {
        var all: [CurvesView.Attempt] = []
        while case let part = try await curveAttempts(run: id, from: all.count), !part.isEmpty { all += part }
        let (metrics, bests) = try await perform { coordinator in
            let run = try coordinator.runs.run(id)
            return (run.metrics, run.bests)
        }
        return CurvesView(run: id, all, metrics: metrics, bests: bests, points: limit)
    }

    private func curveAttempts(run id: String, from place: Int) throws -> [CurvesView.Attempt] {
        let run = try runs.run(id)
        return run.trainingPlaces.dropFirst(place).prefix(10 * Self.partCount).map { place in
            let round = run.rounds[place]
            let bytesUp = run.bytesUp(round) { plannedByteCount(ofRun: id) }
            return CurvesView.Attempt(round, bytesUp: bytesUp, bytesDown: run.bytesDown(round))
        }
    }
}
