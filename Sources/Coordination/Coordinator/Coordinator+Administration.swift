import DifferentialPrivacy
import Foundation
import Logging
import Tensors
package import WireFormat

/// What operators change and look at: tokens, the audit log, populations, clients, budgets and the ledger.
extension Coordinator {
    // MARK: - Callers

    /// Whose token it is, or `nil` when it is not known, expired or revoked.
    package func principal(token: String) -> Principal? {
        // The token is looked up by its hash: the time of the look-up says nothing about any token's text.
        guard let record = tokens.valid(Secrets.hash(ofToken: token), at: now),
            let found = Principal(record, among: clients)
        else { return nil }
        if let role = found.staffRole {
            tokens.noteUse(id: record.id, at: now)
            AuditTrail.current?.identify(tokenID: record.id, name: record.name, role: role)
        }
        return found
    }

    /// Whose token it is, when the connection shows the certificate that goes with it.
    package func principal(token: String, certificateKey: String?) throws -> Principal? {
        let found = principal(token: token)
        if case .client(let id) = found {
            try clients.checkCertificate(of: id, certificateKey)
            endEarlierRegistrations(Secrets.hash(ofToken: token))
        }
        return found
    }

    /// A client that uses the token of a repeated registration has read that answer: the token before it ends.
    private func endEarlierRegistrations(_ hash: String) {
        let ending = tokens.endingEarlierRegistrations(than: hash)
        guard !ending.isEmpty else { return }
        do {
            try commit(ending)
        } catch {
            // It lives until the next request.
            logger.error("A superseded token could not be ended", metadata: ["error": "\(error)"])
        }
    }

    /// Makes the first administrator's token when there is none yet; `nil` afterwards.
    ///
    /// - Parameter keep: Is given the token before it counts.
    /// - Returns: The token.
    /// - Throws: What `keep` throws, and there is no token then; ``CoordinationError`` with code `storage_failed`.
    package func makeFirstAdminToken(_ keep: @Sendable (String) throws -> Void = { _ in }) throws -> String? {
        guard !tokens.hasAdmin else { return nil }
        let token = Secrets.token()
        try keep(token)
        try commit([
            .token(
                TokenRecord(
                    hash: Secrets.hash(ofToken: token),
                    role: .admin,
                    name: "first administrator",
                    createdAt: now
                )
            )
        ])
        return token
    }

    /// Makes a given text, the content of a file that a setting names, a token of the role.
    ///
    /// The text that the file held before ends with that: it may have been replaced because it leaked.
    ///
    /// - Throws: ``CoordinationError`` with code `token_in_use` where the text is a token of another kind already.
    package func ensureToken(_ text: String, role: StaffRole, name: String) throws {
        let changes = try tokens.replacingFileToken(
            by: Secrets.hash(ofToken: text),
            role: role.tokenRole,
            name: name,
            at: now
        )
        if !changes.isEmpty { try commit(changes) }
    }

    // MARK: - Tokens

    /// Makes a viewer's, operator's or administrator's token.
    package func createToken(_ request: TokenRequest, by creator: String) throws -> IssuedToken {
        let token = Secrets.token()
        let record = TokenRecord(
            hash: Secrets.hash(ofToken: token),
            role: request.role.tokenRole,
            name: request.name,
            createdBy: creator,
            expiresAt: request.expiresInS.map { now.addingTimeInterval($0) },
            createdAt: now
        )
        try commit([.token(record)])
        return IssuedToken(token: token, view: tokens.view(record))
    }

    /// All tokens but those of clients, oldest first; a rotated one is shown once.
    package func listTokens(after cursor: Int = 0, limit: Int) -> Listing<TokenView> {
        let found = tokens.listed(after: cursor, limit: limit)
        return Listing(items: found.records.map(tokens.view), next: found.next)
    }

    /// One token by its id.
    package func token(_ id: String) throws -> TokenView { tokens.view(try tokens.record(id: id)) }

    /// The token that the caller presented.
    package func token(presented: String) throws -> TokenView {
        tokens.view(try tokens.record(presented: Secrets.hash(ofToken: presented)))
    }

    /// Gives a token a new text; its id, role, name and expiry stay.
    ///
    /// The old text goes on working for `gracePeriod` seconds; every other text ends, so that no more than two ever work.
    package func rotateToken(_ id: String, gracePeriod: Double) throws -> IssuedToken {
        try rotate(tokens.record(id: id), gracePeriod: gracePeriod)
    }

    /// Gives the presented token a new text.
    package func rotateToken(presented: String, gracePeriod: Double) throws -> IssuedToken {
        try rotate(tokens.record(presented: Secrets.hash(ofToken: presented)), gracePeriod: gracePeriod)
    }

    /// Revokes a token at once, under its old texts too.
    package func revokeToken(_ id: String) throws {
        try commit(tokens.revoking(id: id))
        tokens.forgetUses(ids: [id])
    }

    private func rotate(_ record: TokenRecord, gracePeriod: Double) throws -> IssuedToken {
        let token = Secrets.token()
        let (renewed, changes) = try tokens.rotating(
            record,
            to: Secrets.hash(ofToken: token),
            gracePeriod: gracePeriod,
            at: now
        )
        try commit(changes)
        return IssuedToken(token: token, view: tokens.view(renewed))
    }

    /// Removes records of tokens that have expired, some at a time.
    func removeExpiredTokens() {
        let hashes = tokens.removable(at: now, limit: 500)
        guard !hashes.isEmpty else { return }
        let ids = hashes.compactMap { tokens[$0]?.id }
        do {
            try commit(hashes.map { .deleteToken(hash: $0) })
            tokens.forgetUses(ids: ids)
        } catch {
            // A disk's refusal has its own line, once a minute.
            guard StorageFailure(error) == nil else { return }
            logger.error("Expired tokens could not be removed", metadata: ["error": "\(error)"])
        }
    }

    /// Removes tokens from the database that it need not hold.
    func removeTokens(_ unneeded: [String]) throws {
        guard !unneeded.isEmpty else { return }
        for start in stride(from: 0, to: unneeded.count, by: 5000) {
            try write(unneeded[start..<min(unneeded.count, start + 5000)].map { .deleteToken(hash: $0) })
        }
        logger.notice("Expired and superseded tokens were removed", metadata: ["token.count": "\(unneeded.count)"])
    }

    // MARK: - Audit

    /// Leaves the row of a request that was refused, or failed after a part of it was done.
    ///
    /// - Parameters:
    ///   - trail: The request.
    ///   - code: Why.
    ///   - unwritten: How many refused requests of the same token had no row of their own since the last one that had.
    /// - Returns: Whether the row is there.
    @discardableResult
    package func auditRefusal(_ trail: AuditTrail, code: String, unwritten: Int = 0) -> Bool {
        guard let row = trail.take(at: now, refusal: code) else { return false }
        var rows = [StoreChange.audit(row)]
        if unwritten > 0 {
            var sum = row
            sum.action = "refused requests without a row"
            sum.target = String(unwritten)
            rows.insert(.audit(sum), at: 0)
        }
        do {
            try write(rows)
            return true
        } catch {
            logger.error("A refused action could not be audited", metadata: ["error": "\(error)"])
            return false
        }
    }

    /// Leaves the row of an action that needed no transaction of the coordinator.
    package func auditCompletion(_ trail: AuditTrail) throws {
        guard let row = trail.take(at: now, refusal: nil) else { return }
        try write([.audit(row)])
    }

    /// Notes that a caller without a token acts, on a server that allows that.
    package nonisolated func identifyOpenCaller() {
        AuditTrail.current?.identify(tokenID: "open", name: nil, role: .admin)
    }

    /// Rows of the audit log, newest first; read beside the coordinator, since a filter may pass over many.
    package nonisolated func auditRows(_ query: AuditQuery) async throws -> [AuditRow] {
        try await DispatchQueue.global(qos: .utility).result { [store] in try store.audit(query) }
    }

    // MARK: - Populations

    package func createPopulation(_ request: PopulationRequest) throws -> PopulationView {
        guard !populations.hasName(request.name) else {
            throw CoordinationError(.conflict, "name_taken", "a population named '\(request.name)' exists already")
        }
        let record = PopulationRecord(
            id: Secrets.identifier("pop"),
            name: request.name,
            budgetEpsilon: request.budget?.epsilon,
            budgetDelta: request.budget?.delta,
            createdAt: now
        )
        let count = budgets.ledger.rows.count
        let row = try budgets.stateBudget(of: record, accountant: request.budget?.accountant ?? .auto, at: now)
        try commit([.population(record)] + (row.map { [.ledger($0)] } ?? []), ledgerCount: count)
        return try population(record.id)
    }

    /// Populations in the order in which they were made, from a place on.
    package func listPopulations(from cursor: Int = 0, limit: Int) throws -> Listing<PopulationView> {
        let ids = Listing(populations.order, from: cursor, limit: limit)
        // All of them together get what one question may take.
        var allowance = Self.statusAllowance
        return Listing(items: try ids.items.map { try population($0, allowance: &allowance) }, next: ids.next)
    }

    package func population(_ idOrName: String) throws -> PopulationView {
        var allowance = Self.statusAllowance
        return try population(idOrName, allowance: &allowance)
    }

    private func population(_ idOrName: String, allowance: inout Int) throws -> PopulationView {
        let record = try populations.record(idOrName)
        return PopulationView(
            id: record.id,
            name: record.name,
            clients: (clients.stateCounts[record.id] ?? [:]).shown,
            budget: budgetStatus(of: record, allowance: &allowance),
            createdAt: record.createdAt.wireTimestamp
        )
    }

    package func createEnrollmentToken(population idOrName: String, _ request: EnrollmentTokenRequest) throws -> String
    {
        try issueEnrollmentToken(population: idOrName, request, by: nil).token
    }

    /// Makes a token that enrolls clients, and says by which id it can be revoked.
    package func issueEnrollmentToken(
        population idOrName: String,
        _ request: EnrollmentTokenRequest,
        by creator: String?
    ) throws -> IssuedToken {
        let token = Secrets.token()
        let record = TokenRecord(
            hash: Secrets.hash(ofToken: token),
            role: .enrollment,
            createdBy: creator,
            populationId: try populations.record(idOrName).id,
            usesLeft: request.maxUses,
            expiresAt: request.expiresInS.map { now.addingTimeInterval($0) },
            createdAt: now
        )
        try commit([.token(record)])
        return IssuedToken(token: token, view: tokens.view(record))
    }

    /// Registers a client; the same key with the same enrollment token gives the same client again, with a new token.
    ///
    /// The token before ends when the new one is first used.
    package func register(
        enrollmentTokenHash: String,
        _ request: RegistrationRequest,
        idempotencyKey: String?,
        certificateKey: String? = nil
    ) throws -> RegistrationResponse {
        guard let enrollment = tokens[enrollmentTokenHash], let population = enrollment.populationId else {
            throw CoordinationError(.unauthorized, "unauthorized", "the enrollment token is not known")
        }
        let token = Secrets.token()
        let (client, changes) = try clients.registering(
            request,
            with: (enrollment, population),
            tokenHash: Secrets.hash(ofToken: token),
            idempotencyKey: idempotencyKey,
            certificateKey: certificateKey,
            tokens: tokens,
            at: now
        )
        try commit(changes)
        clients.noteSeen(client, at: now)
        return RegistrationResponse(clientId: client, token: token)
    }

    /// Clients in the order in which they registered, from a place on.
    ///
    /// The coordinator gives the records only: what is parsed and looked up for them holds up nobody.
    package nonisolated func listClients(from cursor: Int = 0, limit: Int) async throws -> Listing<ClientView> {
        let page = try await pages(from: cursor, limit: limit) { coordinator, place, limit in
            let records = coordinator.clients.part(from: place, limit: limit)
            let next = place + records.count < coordinator.clients.count ? place + records.count : nil
            return Listing(
                items: records.map { (record: $0, lastSeen: coordinator.clients.presence.lastSeen($0.id)) },
                next: next
            )
        }
        return try await Self.listing.result {
            let participations = try self.participations(of: page.items.map(\.record.id))
            return Listing(
                items: page.items.map {
                    ClientView($0.record, lastSeen: $0.lastSeen, participations: participations[$0.record.id] ?? [:])
                },
                next: page.next
            )
        }
    }

    /// Where long pages are read from the store and put together, away from the few cooperative threads.
    private static let listing = DispatchQueue(label: "martlet.listing", attributes: .concurrent)

    /// One client, looked up beside the coordinator.
    package nonisolated func clientView(_ id: String) async throws -> ClientView {
        let (record, lastSeen) = try await perform { coordinator in
            (try coordinator.clients.client(id), coordinator.clients.presence.lastSeen(id))
        }
        return ClientView(record, lastSeen: lastSeen, participations: try participations(of: [id])[id] ?? [:])
    }

    package func client(_ id: String) throws -> ClientView {
        try view(clients.client(id))
    }

    /// Changes what is known of a client; an open assignment stays.
    package func changeClient(_ id: String, _ change: ClientChange) throws -> ClientView {
        let record = try clients.changing(id, change)
        if record != clients[id] {
            try commit([.client(record)])
            // What it waits for may be there for it now.
            placement.wake(client: id)
        }
        return try view(record)
    }

    /// Revokes a client: its token stops working and its open assignment is superseded.
    package func revokeClient(_ id: String) throws {
        guard let record = try clients.revoking(id) else { return }
        defer { placement.wake(client: id) }
        var changes: [StoreChange] = [.client(record)]
        guard let live = runs.liveByClient[id], var assignment = runs.assignments[live] else {
            return try commit(changes)
        }
        let effects = try assignment.taking(.superseded(code: "client_revoked"), at: now)
        changes += assignment.changes(effects, at: now)
        if runs[assignment.runId]?.counts(assignment) ?? false {
            // It may still send what it was given the work for, and has not said that it gives it up: that is no failure.
            try drive(run: assignment.runId, [.expired], with: changes)
        } else {
            try commit(changes)
        }
    }

    /// Lets a quarantined client take part again.
    package func releaseClient(_ id: String) throws {
        guard let record = try clients.releasing(id) else { return }
        try commit([.client(record)])
        wakeAll()
    }

    /// How far one client's latest updates stood out.
    package nonisolated func updateScores(client id: String) async throws -> [UpdateScoreView] {
        _ = try await client(id)
        return try store.updateScores(client: id, limit: 1000).map(UpdateScoreView.init)
    }

    private func view(_ record: ClientRecord) throws -> ClientView {
        ClientView(
            record,
            lastSeen: clients.presence.lastSeen(record.id),
            participations: try participations(of: [record.id])[record.id] ?? [:]
        )
    }

    /// How often each of the clients was given work for training, by run.
    private nonisolated func participations(of clients: [String]) throws -> [String: [String: Int]] {
        var counts: [String: [String: Int]] = [:]
        for row in try store.participations(clients: clients) where row.trainings > 0 {
            counts[row.clientId, default: [:]][row.runId] = row.trainings
        }
        return counts
    }

    // MARK: - Budgets

    /// Cells of loss distributions that the status of budgets may take while everybody waits.
    private static var statusAllowance: Int { LossAllowance.standard / 2 }

    func budgetStatus(of population: PopulationRecord, allowance: inout Int) -> BudgetStatus? {
        guard population.budgetEpsilon != nil else { return nil }
        let plans = runs.open(population: population.id).compactMap { id -> PrivacyBudgets.OpenPlan? in
            guard let run = runs[id], run.specification.privacy.mode != .none, !run.isOver,
                let charge = try? charge(of: run)
            else { return nil }
            return .init(
                run: id,
                charge: charge,
                specification: run.specification,
                publishedCount: max(0, run.versions.count - 1)
            )
        }
        return budgets.status(of: population, plans: plans, allowance: &allowance)
    }

    /// What is proven of everything that was released of a run's population up to one of its versions and what was measured of
    /// that.
    ///
    /// The rows are gathered in parts, between which others have their turn; the arithmetic is beside the coordinator, one claim at
    /// a time.
    ///
    /// - Returns: `nil` where nothing was charged by then.
    /// - Throws: ``CoordinationError`` `not_found`, `claims_busy`, or `privacy_invalid` where a total cannot be computed.
    package func claim(run id: String, version number: Int) async throws -> PrivacyClaim? {
        let run = try runs.run(id)
        guard let version = run.version(numbered: number) else {
            throw CoordinationError(.notFound, "not_found", "run '\(id)' has no model version '\(number)'")
        }
        let population = try populations.record(run.record.populationId)
        let place: ClaimPlace
        switch budgets.claimState(through: version, of: population) {
        case .known(let claim): return claim
        case .open(let open): place = open
        }
        let delta = population.budgetDelta ?? 0
        return try await claimDesk.claim(of: place) { [self] in
            let generation = await budgets.generation
            var rows: [LedgerRow] = []
            while rows.count < place.rowCount {
                let part = try await ledgerRows(
                    population: population.id,
                    from: rows.count,
                    limit: min(1_000, place.rowCount - rows.count)
                )
                guard !part.items.isEmpty else { break }
                rows += part.items
            }
            let gathered = rows
            let claim = try await DispatchQueue.global(qos: .utility).result {
                try PrivacyBudgets.claim(of: gathered, delta: delta)
            }
            await keep(claim, of: place, generation: generation)
            return claim
        }
    }

    private func keep(_ claim: PrivacyClaim?, of place: ClaimPlace, generation: Int) {
        budgets.keep(claim, of: place, generation: generation)
    }

    /// What a specification would cost its population, with everything charged before.
    ///
    /// - Throws: ``CoordinationError``: no privacy, no budget, or parameters that no accountant takes.
    package nonisolated func projection(
        of specification: RunSpecification,
        parameterCount: Int?
    ) async throws -> PrivacyProjection {
        let basis = try await perform { $0.budgets.basis(of: try $0.populations.record(specification.population)) }
        return try await arithmeticDesk.compute {
            try basis.projection(of: specification, parameterCount: parameterCount)
        }
    }

    /// Where the ledger stands.
    package func ledgerState() -> LedgerStateView { budgets.state }

    /// The second record's state in a word: `kept`, `unwritable`, `unread`, or `alarm`.
    package var ledgerRecordState: String { budgets.trust.word }

    /// The population's own rows of the ledger, oldest first, from a place among them on.
    package func ledgerRows(
        population idOrName: String,
        from cursor: Int = 0,
        limit: Int = .max
    ) throws -> Listing<LedgerRow> {
        let all = budgets.ledger.places(ofPopulation: try populations.record(idOrName).id)
        let places = Listing(all, from: cursor, limit: limit)
        return Listing(items: places.items.map { budgets.ledger.rows[$0] }, next: places.next)
    }

    /// Links of a population's rows after so many, one page at most; empty at the end.
    ///
    /// - Throws: ``CoordinationError`` `not_found`, also for a client of another population.
    package func ledgerLinks(population id: String, after number: Int, client: String?) throws -> [UInt8] {
        let record = try population(id, shownTo: client)
        return budgets.ledger.chains[record.id]?.page(after: number) ?? []
    }

    /// The rows by which administrators accepted restored ledgers of a population.
    package func ledgerAcknowledgements(population id: String, client: String?) throws -> LedgerAcknowledgements {
        let record = try population(id, shownTo: client)
        return LedgerAcknowledgements(items: budgets.ledger.account(record.id).acknowledgements)
    }

    private func population(_ id: String, shownTo client: String?) throws -> PopulationRecord {
        guard let client else { return try populations.record(id) }
        // Whether there is another one of that name is nothing that a client learns.
        guard let record = try? populations.record(id), clients[client]?.populationId == record.id else {
            throw CoordinationError(.notFound, "not_found", "no population '\(id)'")
        }
        return record
    }

    /// Everything that an outside accountant needs: own rows whole, other populations' as links of the chain.
    ///
    /// The rows are gathered in parts, between which others have their turn.
    package nonisolated func ledgerAudit(population idOrName: String) async throws -> LedgerAuditDocument {
        var (document, count) = try await auditWithoutRows(population: idOrName)
        var runCount = Self.partCount
        while let part = await drawHistogram(population: document.population, from: runCount) {
            document.participations.merge(part) { _, new in new }
            runCount += Self.partCount
        }
        while document.rows.count < count {
            let part = await ledgerRows(from: document.rows.count, through: count)
            document.rows += part.map { LedgerAuditDocument.Row($0, isShown: $0.populationId == document.population) }
        }
        return document
    }

    private func ledgerRows(from place: Int, through end: Int) -> [LedgerRow] {
        // Not a slice, which would make the next charge copy the ledger.
        Array(budgets.ledger.rows[place..<min(end, place + 10 * Self.partCount)])
    }

    private func auditWithoutRows(
        population idOrName: String
    ) throws -> (document: LedgerAuditDocument, rowCount: Int) {
        let record = try populations.record(idOrName)
        var allowance = Self.statusAllowance
        guard let status = budgetStatus(of: record, allowance: &allowance) else {
            throw CoordinationError(.conflict, "population_without_budget", "'\(record.name)' has no budget")
        }
        let histogram = drawHistogram(population: record.id, from: 0) ?? [:]
        return (budgets.audit(of: record, status, participations: histogram), budgets.ledger.rows.count)
    }

    private func drawHistogram(population: String, from place: Int) -> [String: [String: Int]]? {
        runs.drawHistogram(population: population, from: place, limit: Self.partCount)
    }

    // MARK: - Changes of the budget

    /// Sets a population's ε: lower at will, higher with a reason that stays in the ledger.
    package func changeBudget(population idOrName: String, _ request: BudgetChangeRequest) throws -> PopulationView {
        let record = try populations.record(idOrName)
        try PrivacyBudgets.checkChange(of: record, request)
        if budgets.isOverdrawn(record, by: request) {
            try abandonPrivateAttempts(
                population: record.id,
                reason: "the budget was lowered to \(request.epsilon), under what was reserved"
            )
        }
        try charging { budgets throws in
            try budgets.changing(record, to: request.epsilon, reason: request.reason, at: now)
        }
        return try population(record.id)
    }

    /// Accepts a restored database: what the second record knows and the database does not is charged again.
    ///
    /// - Parameters:
    ///   - reason: Stays in the ledger.
    ///   - heads: Heads that devices or auditors hold and the ledger does not lead to; those of the second record are added. Devices that
    ///     hold one take the restored ledger, and tell their owner once.
    /// - Returns: Where the ledger stands.
    /// - Throws: ``CoordinationError`` `nothing_to_acknowledge` where nothing was lost.
    package func acknowledgeRollback(
        reason: String,
        lostHeads heads: [PopulationLedgerHead] = []
    ) throws -> LedgerStateView {
        try budgets.checkLost(heads, populations)
        if budgets.trust.isUnread { try ledgerRecord.open(&budgets, at: now) }
        // What it says is what would be charged again.
        if budgets.trust.isUnread, let trouble = budgets.trust.trouble { throw trouble.error }
        try budgets.requireLoss(heads)
        let alarm = budgets.trust.alarm
        // Whether all that was lost is what the second record says.
        let isKnown = alarm?.isRecordMissing == false && !budgets.trust.isRestored
        try ledgerRecord.keepOverruled(at: now)
        try charging { budgets throws in
            try budgets.acknowledging(reason: reason, lostHeads: heads, populations, at: now)
        }
        // While the alarm stands: a stop before its end lets all of this be done again.
        try abandonPrivateAttempts(
            reason: "the privacy ledger was rolled back, which an administrator acknowledged",
            cost: isKnown ? .chargedAgain : .apart
        )
        // What was forgotten used rows of the noise that the database does not know of: the mechanism has ended.
        for run in Set((alarm?.lost ?? []).filter { $0.charge.kind == .bandedMatrix }.map(\.run)) {
            guard let state = runs[run], !state.isOver else { continue }
            let cause = NoiseState.lost(run, "the database was rolled back behind what was released").message
            try drive(run: run, .failed(code: "noise_state_lost", cause: cause))
        }
        budgets.trust.alarm = nil
        ledgerRecord.overrule(&budgets, at: now)
        consumeRestoredNote()
        dropUnneededNoise()
        logger.notice("A roll-back of the privacy ledger was acknowledged", metadata: ["reason": "\(reason)"])
        return budgets.state
    }

    /// Stores changes that append to the ledger, or takes back what they have appended.
    private func charging(_ make: (inout PrivacyBudgets) throws -> [StoreChange]) throws {
        let count = budgets.ledger.rows.count
        try commit(make(&budgets), ledgerCount: count)
    }
}
