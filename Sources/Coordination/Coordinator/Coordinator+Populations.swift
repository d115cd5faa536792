import Foundation
package import WireFormat

extension Coordinator {
    package func createPopulation(_ request: PopulationRequest) throws -> PopulationView {
        guard populationsByName[request.name] == nil else {
            throw CoordinationError(.conflict, "name_taken", "a population named '\(request.name)' exists already")
        }
        let record = PopulationRecord(
            id: Secrets.identifier("pop"),
            name: request.name,
            budgetEpsilon: request.budget?.epsilon,
            budgetDelta: request.budget?.delta,
            createdAt: now
        )
        let count = ledger.rows.count
        let row = try budgetRow(record, accountant: request.budget?.accountant ?? .auto)
        try commit([.population(record)] + (row.map { [.ledger($0)] } ?? []), ledgerCount: count)
        return try population(record.id)
    }

    /// Populations in the order in which they were made, from a place on.
    package func listPopulations(from cursor: Int = 0, limit: Int) throws -> Listing<PopulationView> {
        let ids = Listing(populationOrder, from: cursor, limit: limit)
        return Listing(items: try ids.items.map { try population($0) }, next: ids.next)
    }

    package func population(_ idOrName: String) throws -> PopulationView {
        let record = try populationRecord(idOrName)
        return PopulationView(
            id: record.id,
            name: record.name,
            clients: (clientStateCounts[record.id] ?? [:]).shown,
            budget: budgetStatus(of: record),
            createdAt: record.createdAt.wireTimestamp
        )
    }

    /// The population's own rows of the ledger, oldest first, from a place among them on.
    package func ledgerRows(
        population idOrName: String,
        from cursor: Int = 0,
        limit: Int = .max
    ) throws -> Listing<LedgerRow> {
        let places = Listing(ledger.places(ofPopulation: try populationRecord(idOrName).id), from: cursor, limit: limit)
        return Listing(items: places.items.map { ledger.rows[$0] }, next: places.next)
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
            hash: Secrets.sha256(Array(token.utf8)),
            role: .enrollment,
            createdBy: creator,
            populationId: try populationRecord(idOrName).id,
            usesLeft: request.maxUses,
            expiresAt: request.expiresInS.map { now.addingTimeInterval($0) },
            createdAt: now
        )
        try commit([.token(record)])
        return IssuedToken(token: token, view: view(record))
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
        guard var enrollment = tokens[enrollmentTokenHash], let population = enrollment.populationId else {
            throw CoordinationError(.unauthorized, "unauthorized", "the enrollment token is not known")
        }
        let token = Secrets.token()
        let hash = Secrets.sha256(Array(token.utf8))
        let registrationKey = idempotencyKey.map { enrollmentTokenHash + ":" + $0 }
        var changes: [StoreChange] = []
        let clientID: String
        if let registrationKey, let known = clientsByRegistration[registrationKey] {
            clientID = known
            guard clients[known]?.certificateKey == certificateKey else { throw Self.certificateMismatch }
            // A proxy may have repeated the request, and the client never see this answer: what it has now goes on working until
            // the new token is first used. One that never was makes room, so that no more than two ever live.
            let texts = tokens.texts(client: known)
            let kept = texts.last { $0.id == texts.first?.id }
            changes += texts.filter { $0.hash != kept?.hash }.map { .deleteToken(hash: $0.hash) }
        } else {
            guard enrollment.usesLeft ?? 1 > 0 else {
                throw CoordinationError(
                    .forbidden,
                    "enrollment_exhausted",
                    "the enrollment token has been used as often as it may be"
                )
            }
            enrollment.usesLeft = enrollment.usesLeft.map { $0 - 1 }
            clientID = Secrets.identifier("clt")
            changes += [
                .client(
                    ClientRecord(
                        id: clientID,
                        populationId: population,
                        name: request.name,
                        labels: Self.document(request.labels),
                        state: .registered,
                        registrationKey: registrationKey,
                        registeredAt: now,
                        capabilities: Self.document(request.capabilities ?? .init()),
                        certificateKey: certificateKey
                    )
                ),
                .token(enrollment),
            ]
        }
        changes.append(.token(TokenRecord(hash: hash, role: .client, clientId: clientID, createdAt: now)))
        try commit(changes)
        noteSeen(clientID)
        return RegistrationResponse(clientId: clientID, token: token)
    }

    /// Clients in the order in which they registered, from a place on.
    ///
    /// The coordinator gives the records only: what is parsed and looked up for them holds up nobody.
    package nonisolated func listClients(from cursor: Int = 0, limit: Int) async throws -> Listing<ClientView> {
        let page = try await pages(from: cursor, limit: limit) { coordinator, place, limit in
            let records = coordinator.clients.part(from: place, limit: limit)
            let next = place + records.count < coordinator.clients.count ? place + records.count : nil
            return Listing(
                items: records.map { (record: $0, lastSeen: coordinator.presence.lastSeen($0.id)) },
                next: next
            )
        }
        let participations = try participations(of: page.items.map(\.record.id))
        return Listing(
            items: page.items.map {
                Self.view($0.record, lastSeen: $0.lastSeen, participations: participations[$0.record.id] ?? [:])
            },
            next: page.next
        )
    }

    /// One client, looked up beside the coordinator.
    package nonisolated func clientView(_ id: String) async throws -> ClientView {
        let (record, lastSeen) = try await perform { coordinator in
            guard let record = coordinator.clients[id] else {
                throw CoordinationError(.notFound, "not_found", "no client '\(id)'")
            }
            return (record, coordinator.presence.lastSeen(id))
        }
        return Self.view(record, lastSeen: lastSeen, participations: try participations(of: [id])[id] ?? [:])
    }

    package func client(_ id: String) throws -> ClientView {
        guard let record = clients[id] else { throw CoordinationError(.notFound, "not_found", "no client '\(id)'") }
        return try view(record)
    }

    /// Changes what is known of a client; an open assignment stays.
    package func changeClient(_ id: String, _ change: ClientChange) throws -> ClientView {
        guard var record = clients[id] else { throw CoordinationError(.notFound, "not_found", "no client '\(id)'") }
        guard record.state != .revoked else {
            throw CoordinationError(.conflict, "client_revoked", "the client has been revoked; nothing of it changes")
        }
        if let name = change.name { record.name = name }
        if let labels = change.labels { record.labels = Self.document(labels) }
        if let capabilities = change.capabilities { record.capabilities = Self.document(capabilities) }
        if record != clients[id] {
            try commit([.client(record)])
            // What it waits for may be there for it now.
            wake(client: id)
        }
        return try view(record)
    }

    /// Revokes a client: its token stops working and its open assignment is superseded.
    package func revokeClient(_ id: String) throws {
        guard var record = clients[id] else { throw CoordinationError(.notFound, "not_found", "no client '\(id)'") }
        guard record.state != .revoked else { return }
        record.state = .revoked
        defer { wake(client: id) }
        var changes: [StoreChange] = [.client(record)]
        guard let live = liveAssignmentByClient[id], var assignment = assignments[live] else {
            return try commit(changes)
        }
        let effects = try apply(.superseded(code: "client_revoked"), to: &assignment)
        changes += self.changes(of: assignment, effects)
        if runs[assignment.runId]?.counts(assignment) ?? false {
            try drive(run: assignment.runId, [.failed], with: changes)
        } else {
            try commit(changes)
        }
    }

    func populationRecord(_ idOrName: String) throws -> PopulationRecord {
        if let record = populations[idOrName] ?? populationsByName[idOrName].flatMap({ populations[$0] }) {
            return record
        }
        throw CoordinationError(.notFound, "not_found", "no population '\(idOrName)'; an administrator makes one")
    }

    private func view(_ record: ClientRecord) throws -> ClientView {
        Self.view(
            record,
            lastSeen: presence.lastSeen(record.id),
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

    private static func view(_ record: ClientRecord, lastSeen: Date?, participations: [String: Int]) -> ClientView {
        let profile = profile(of: record)
        return ClientView(
            id: record.id,
            population: record.populationId,
            name: record.name,
            state: record.state,
            registeredAt: record.registeredAt.wireTimestamp,
            lastSeenAt: lastSeen?.wireTimestamp,
            participations: participations,
            labels: profile.labels,
            capabilities: profile.capabilities,
            secondsPerAssignment: record.secondsPerAssignment,
            quarantineReason: record.quarantineReason,
            quarantinedAt: record.quarantinedAt?.wireTimestamp
        )
    }
}
