import Foundation
import WireFormat

/// What may be done with clients: each answer is a refusal, or what a transaction makes durable.
extension ClientTable {
    /// A known client.
    func client(_ id: String) throws(CoordinationError) -> ClientRecord {
        guard let record = self[id] else { throw CoordinationError(.notFound, "not_found", "no client '\(id)'") }
        return record
    }

    /// Refuses a client whose connection shows another certificate than the one that it registered with.
    func checkCertificate(of id: String, _ key: String?) throws(CoordinationError) {
        if let bound = self[id]?.certificateKey, bound != key { throw Self.certificateMismatch }
    }

    private static let certificateMismatch = CoordinationError(
        .unauthorized,
        "certificate_mismatch",
        "the client registered with another certificate; its token counts together with that one only"
    )

    /// Registers a client; the same key with the same enrollment token gives the same client again, with a new token.
    ///
    /// - Parameters:
    ///   - request: What the client says of itself.
    ///   - enrollment: The token that it shows, whose population it joins.
    ///   - hash: Of the text that the client gets.
    ///   - idempotencyKey: Of the request.
    ///   - certificateKey: The key of the connection's certificate.
    ///   - tokens: Every token.
    ///   - time: Now.
    /// - Returns: The client's id, and the changes that store it and its token.
    /// - Throws: ``CoordinationError`` with code `enrollment_exhausted` or `certificate_mismatch`.
    func registering(
        _ request: RegistrationRequest,
        with enrollment: (record: TokenRecord, population: String),
        tokenHash hash: String,
        idempotencyKey: String?,
        certificateKey: String?,
        tokens: TokenTable,
        at time: Date
    ) throws(CoordinationError) -> (client: String, changes: [StoreChange]) {
        let key = idempotencyKey.map { enrollment.record.hash + ":" + $0 }
        let id: String
        var changes: [StoreChange]
        if let known = key.flatMap({ self.id(registration: $0) }) {
            id = known
            guard self[known]?.certificateKey == certificateKey else { throw Self.certificateMismatch }
            changes = tokens.makingRoom(forClient: known)
        } else {
            let used = try tokens.enrolling(with: enrollment.record)
            id = Secrets.identifier("clt")
            let client = ClientRecord(
                id: id,
                populationId: enrollment.population,
                name: request.name,
                labels: StoredDocument.text(request.labels),
                state: .registered,
                registrationKey: key,
                registeredAt: time,
                capabilities: StoredDocument.text(request.capabilities ?? .init()),
                certificateKey: certificateKey
            )
            changes = [.client(client), used]
        }
        changes.append(.token(TokenRecord(hash: hash, role: .client, clientId: id, createdAt: time)))
        return (id, changes)
    }

    /// What a client is after an operator's change.
    ///
    /// - Throws: ``CoordinationError`` with code `client_revoked`.
    func changing(_ id: String, _ change: ClientChange) throws(CoordinationError) -> ClientRecord {
        var record = try client(id)
        guard record.state != .revoked else {
            throw CoordinationError(.conflict, "client_revoked", "the client has been revoked; nothing of it changes")
        }
        if let name = change.name { record.name = name }
        if let labels = change.labels { record.labels = StoredDocument.text(labels) }
        if let capabilities = change.capabilities { record.capabilities = StoredDocument.text(capabilities) }
        return record
    }

    /// What a client is that is revoked; `nil` where it has been.
    func revoking(_ id: String) throws(CoordinationError) -> ClientRecord? {
        var record = try client(id)
        guard record.state != .revoked else { return nil }
        record.state = .revoked
        return record
    }

    /// What a quarantined client is that takes part again; `nil` where it is not quarantined.
    func releasing(_ id: String) throws(CoordinationError) -> ClientRecord? {
        var record = try client(id)
        guard record.quarantinedAt != nil else { return nil }
        record.quarantinedAt = nil
        record.quarantineReason = nil
        return record
    }

    /// The clients that a round's scores ask to give no more work, where their runs say so.
    func quarantining(
        _ scores: [UpdateScoreRecord],
        at time: Date,
        where isAsked: (_ run: String) -> Bool
    ) -> [(score: UpdateScoreRecord, client: ClientRecord)] {
        scores.compactMap { score in
            guard let reason = score.reason, isAsked(score.runId), var client = self[score.clientId],
                client.quarantinedAt == nil
            else { return nil }
            client.quarantinedAt = time
            client.quarantineReason = "round \(score.round) of \(score.runId): \(reason)"
            return (score, client)
        }
    }

    /// What a client says about the generation of its state; kept in memory until what its work came to, or its next assignment, is
    /// stored.
    ///
    /// - Returns: Whether it is the first client since the start that knows of an assignment which this server has not given: only a
    ///   server that was restored has forgotten numbers that it gave.
    /// - Throws: ``CoordinationError`` with code `state_cloned` for a copy of a state that has gone on elsewhere.
    mutating func noteGeneration(of id: String, stated: Int) throws(CoordinationError) -> Bool {
        guard var client = self[id] else { return false }
        let isFirst = stated > client.generation?.issued ?? 0 && noteAhead(id)
        var generation = client.generation ?? ClientGeneration(issued: stated, confirmed: stated)
        guard generation.confirm(stated) else {
            throw CoordinationError(
                .conflict,
                "state_cloned",
                "this client's state is an older copy (generation \(stated)) of one that has gone on elsewhere (generation "
                    + "\(generation.issued)); two copies with one identity would each forget what the other has spent"
            )
        }
        if generation != client.generation {
            client.generation = generation
            set(client)
        }
        return isFirst
    }

    /// How many clients are in which state.
    ///
    /// - Parameters:
    ///   - working: Clients that hold an assignment now.
    ///   - isSecret: Whether a run draws in secret: in how many clients hold work, and how many have had any, it would show how many
    ///     were drawn.
    ///   - time: Now.
    /// - Returns: The counts, with zeros left out.
    func counts(working: Int, isSecret: Bool, at time: Date) -> ClientCounts {
        let active = min(count(of: .worker), presence.workerCount(at: time))
        var states = [
            "registered": count(of: .registered), "quarantined": count(of: .quarantined),
            "revoked": count(of: .revoked), "active": active,
            "offline": count(of: .worker) - active,
        ]
        if isSecret {
            let parts = ["registered", "active", "offline"]
            states["enrolled"] = parts.reduce(0) { $0 + (states[$1] ?? 0) }
            for part in parts { states[part] = nil }
        }
        return ClientCounts(
            total: count,
            byState: states.filter { $0.value > 0 },
            byTier: tierCounts,
            working: working
        )
    }

    /// What of the clients needs somebody's attention.
    var problems: [ProblemView] {
        var found: [ProblemView] = []
        let count = count(of: .quarantined)
        if count > 0 {
            found.append(
                ProblemView(
                    code: "clients_quarantined",
                    severity: "warning",
                    count: count,
                    detail:
                        "\(count) clients are quarantined, because their updates stood out: look at them, then release or "
                        + "revoke them."
                )
            )
        }
        if !ahead.isEmpty {
            found.append(
                ProblemView(
                    code: "clients_ahead",
                    severity: "warning",
                    count: ahead.count,
                    detail:
                        "\(ahead.count) clients know of assignments that this database does not: it was restored or rolled "
                        + "back, or they lie. Where it was not restored with martlet restore, put the newest database back."
                )
            )
        }
        return found
    }

    /// A population's clients by state, as they are with a changed one.
    func stateCounts(with record: ClientRecord) -> [ClientStanding: Int] {
        var counts = stateCounts[record.populationId] ?? [:]
        if let before = self[record.id]?.state { counts[before, default: 0] -= 1 }
        counts[record.state, default: 0] += 1
        return counts
    }
}

/// JSON of small values, as columns of the store hold it.
enum StoredDocument {
    static func text(_ value: some Encodable) -> String {
        (try? WireCoding.encode(value)).map { String(decoding: $0, as: UTF8.self) } ?? "{}"
    }
}

extension ClientView {
    /// A client as it is shown, with how often it was given work for training by run.
    init(_ record: ClientRecord, lastSeen: Date?, participations: [String: Int]) {
        let profile = ClientProfileCache.parse(record)
        self.init(
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
