import Foundation
package import WireFormat

/// What a population has of its budget.
package struct BudgetStatus: Codable, Equatable, Sendable {
    package var epsilon: Double
    package var delta: Double
    package var unit = "client"
    package var relation = "zero_out"
    /// Who enforces: `gaussian`, `pld`, `rdp` or `filter`.
    package var accountant = "gaussian"
    /// Whether a plan began after another run had published, so that only filters may enforce.
    package var isAdaptive = false
    package var spentEpsilon: Double
    package var reservedEpsilon: Double
    package var remainingEpsilon: Double
    /// For each run that has not ended: how many more rounds the budget admits, `null` where the number has no bound.
    package var roundsThatFit: [String: Int?]
}

/// A population as it is shown.
package struct PopulationView: Codable, Equatable, Sendable {
    package var id: String
    package var name: String
    package var clients: [String: Int]
    package var budget: BudgetStatus?
    package var createdAt: String
}

/// A client as it is shown.
package struct ClientView: Codable, Equatable, Sendable {
    package var id: String
    package var population: String
    package var name: String?
    package var state: String
    package var registeredAt: String
    package var lastSeenAt: String?
    package var participations: [String: Int]
    package var labels: [String: String]
    package var capabilities: ClientCapabilities
    /// From its assignments to its updates, smoothed.
    package var secondsPerAssignment: Double?
    /// Why the client gets no work any more.
    package var quarantineReason: String?
    package var quarantinedAt: String?
}

extension Coordinator {
    package func createPopulation(_ request: PopulationRequest) throws -> PopulationView {
        guard !populations.values.contains(where: { $0.name == request.name }) else {
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
        let row = try budgetRow(record, accountant: request.budget?.accountant ?? "auto")
        try commit([.population(record)] + (row.map { [.ledger($0)] } ?? []), ledgerCount: count)
        return try population(record.id)
    }

    package func listPopulations() throws -> [PopulationView] {
        try populations.values.sorted { ($0.createdAt, $0.id) < ($1.createdAt, $1.id) }.map { try population($0.id) }
    }

    package func population(_ idOrName: String) throws -> PopulationView {
        let record = try populationRecord(idOrName)
        return PopulationView(
            id: record.id,
            name: record.name,
            clients: (clientStateCounts[record.id] ?? [:]).filter { $0.value > 0 },
            budget: budgetStatus(of: record),
            createdAt: record.createdAt.wireTimestamp
        )
    }

    package func ledgerRows(population idOrName: String) throws -> [LedgerRow] {
        let id = try populationRecord(idOrName).id
        return ledger.rows.filter { $0.populationId == id }
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
            role: "enrollment",
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
            changes += tokens.values.filter { $0.clientId == known }.map { .deleteToken(hash: $0.hash) }
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
                        state: "registered",
                        registrationKey: registrationKey,
                        registeredAt: now,
                        capabilities: Self.document(request.capabilities ?? .init()),
                        certificateKey: certificateKey
                    )
                ),
                .token(enrollment),
            ]
        }
        changes.append(.token(TokenRecord(hash: hash, role: "client", clientId: clientID, createdAt: now)))
        try commit(changes)
        presence.note(clientID, population: population, at: now)
        return RegistrationResponse(clientId: clientID, token: token)
    }

    package func listClients() -> [ClientView] {
        clients.values.sorted { ($0.registeredAt, $0.id) < ($1.registeredAt, $1.id) }.map(view)
    }

    package func client(_ id: String) throws -> ClientView {
        guard let record = clients[id] else { throw CoordinationError(.notFound, "not_found", "no client '\(id)'") }
        return view(record)
    }

    /// Changes what is known of a client; an open assignment stays.
    package func changeClient(_ id: String, _ change: ClientChange) throws -> ClientView {
        guard var record = clients[id] else { throw CoordinationError(.notFound, "not_found", "no client '\(id)'") }
        guard record.state != "revoked" else {
            throw CoordinationError(.conflict, "client_revoked", "the client has been revoked; nothing of it changes")
        }
        if let name = change.name { record.name = name }
        if let labels = change.labels { record.labels = Self.document(labels) }
        if let capabilities = change.capabilities { record.capabilities = Self.document(capabilities) }
        if record != clients[id] { try commit([.client(record)]) }
        return view(record)
    }

    /// Revokes a client: its token stops working and its open assignment is superseded.
    package func revokeClient(_ id: String) throws {
        guard var record = clients[id] else { throw CoordinationError(.notFound, "not_found", "no client '\(id)'") }
        guard record.state != "revoked" else { return }
        record.state = "revoked"
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
        if let record = populations[idOrName] ?? populations.values.first(where: { $0.name == idOrName }) {
            return record
        }
        throw CoordinationError(.notFound, "not_found", "no population '\(idOrName)'; an administrator makes one")
    }

    private func view(_ record: ClientRecord) -> ClientView {
        var participations: [String: Int] = [:]
        for run in runOrder {
            if let count = runs[run]?.participations[record.id] { participations[run] = count }
        }
        return ClientView(
            id: record.id,
            population: record.populationId,
            name: record.name,
            state: record.state,
            registeredAt: record.registeredAt.wireTimestamp,
            lastSeenAt: presence.lastSeen(record.id)?.wireTimestamp,
            participations: participations,
            labels: profile(of: record).labels,
            capabilities: profile(of: record).capabilities,
            secondsPerAssignment: record.secondsPerAssignment,
            quarantineReason: record.quarantineReason,
            quarantinedAt: record.quarantinedAt?.wireTimestamp
        )
    }
}
