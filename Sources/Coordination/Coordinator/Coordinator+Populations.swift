import Foundation
package import WireFormat

extension Coordinator {
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
        let participations = try participations(of: page.items.map(\.record.id))
        return Listing(
            items: page.items.map {
                ClientView($0.record, lastSeen: $0.lastSeen, participations: participations[$0.record.id] ?? [:])
            },
            next: page.next
        )
    }

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
            wake(client: id)
        }
        return try view(record)
    }

    /// Revokes a client: its token stops working and its open assignment is superseded.
    package func revokeClient(_ id: String) throws {
        guard let record = try clients.revoking(id) else { return }
        defer { wake(client: id) }
        var changes: [StoreChange] = [.client(record)]
        guard let live = liveAssignmentByClient[id], var assignment = assignments[live] else {
            return try commit(changes)
        }
        let effects = try apply(.superseded(code: "client_revoked"), to: &assignment)
        changes += self.changes(of: assignment, effects)
        if runs[assignment.runId]?.counts(assignment) ?? false {
            // It may still send what it was given the work for, and has not said that it gives it up: that is no failure.
            try drive(run: assignment.runId, [.expired], with: changes)
        } else {
            try commit(changes)
        }
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
}
