import Coordination
import Crypto
import Foundation
import SecureAggregation
import Tensors
package import WireFormat

extension Helper {
    // MARK: - Granting

    /// Grants a session: reserves its charge, makes its key, and signs its document.
    ///
    /// The same request for the newest attempt of a round has the same session, so a lost answer can be asked for again.
    ///
    /// - Returns: The session, and whether it was made by this call.
    /// - Throws: `CoordinationError` `policy_refused`, `budget_exhausted`, `attempt_conflict`, `invalid_document`,
    ///   `ledger_rolled_back`.
    package func createSession(
        _ request: HelperSessionRequest,
        by caller: ServerCaller
    ) throws -> (session: HelperSessionView, isNew: Bool) {
        try settle()
        let domain = try found(caller.domain)
        let asked = try WireCoding.encode(request)
        let requestHash = Secrets.sha256(Array(asked) + Array("\n\(caller.server)".utf8))
        if let latest = try store.latestAttempt(
            domain: caller.domain,
            run: request.run,
            purpose: request.purpose,
            round: request.round
        ) {
            let isSame = latest.requestHash == requestHash && latest.caller == caller
            if isSame, latest.state == .granted, latest.expiresAt > now { return (try view(latest), false) }
            try Self.checkAttempt(request.attempt, after: latest)
        }
        try ledger.requireTrust(configuration)
        try checkRoom(domain)
        let key = try SessionKey()
        let end = UInt64(now.timeIntervalSince1970) + UInt64(request.expiresInS)
        let document = try request.document(of: caller, publicKey: key.publicKey, expires: end)
        let noise = try DomainRules.admit(document, domain)
        let charge = DomainLedger.charge(for: document, noise, request.purpose)
        let session = SessionRecord(
            id: document.session.hexadecimal,
            caller: caller,
            purpose: request.purpose,
            run: request.run,
            round: request.round,
            attempt: request.attempt,
            state: .granted,
            document: document.bytes,
            grant: Array(try SessionGrant.sign(document, with: signingKey)),
            requestHash: requestHash,
            createdAt: now,
            expiresAt: Date(timeIntervalSince1970: Double(end)),
            charge: charge?.canonical
        )
        try grant(session, charge, domain, key)
        return (try view(session), true)
    }

    /// A second attempt of a round needs the first one ended: two open ones would be two sums of one round.
    private static func checkAttempt(_ attempt: Int, after latest: SessionRecord) throws {
        guard !latest.state.isOpen else {
            throw CoordinationError(
                .conflict,
                HelperCode.attemptConflict.rawValue,
                "attempt \(latest.attempt) of round \(latest.round) is \(latest.state): cancel it, or delete its sum, first"
            )
        }
        guard attempt > latest.attempt else {
            throw CoordinationError(
                .conflict,
                HelperCode.attemptConflict.rawValue,
                "round \(latest.round) has had attempt \(latest.attempt): number the next one higher"
            )
        }
    }

    private func checkRoom(_ domain: DomainRecord) throws {
        guard openSessionCount(domain.name) < domain.policy.openSessions else {
            throw DomainRules.refusal(
                "domain '\(domain.name)' has \(domain.policy.openSessions) open sessions: cancel one, or delete a sum, first"
            )
        }
        guard sessionCount(domain.name) < domain.policy.sessions else {
            throw DomainRules.refusal(
                "domain '\(domain.name)' has had its \(domain.policy.sessions) sessions: its operator can raise their number"
            )
        }
    }

    /// The key is on the disk before the session is in the database, and goes if that fails: a session never lacks its key.
    private func grant(
        _ session: SessionRecord,
        _ charge: PrivacyCharge?,
        _ domain: DomainRecord,
        _ key: SessionKey
    ) throws {
        let count = ledger.ledger.rows.count
        do {
            var changes: [HelperChange] = [.session(session)]
            if let charge, let budget = domain.budget {
                changes.append(.ledger(try ledger.reserve(charge, for: session, budget, at: now)))
            }
            Failpoint.reach()
            var stored = key.stored
            defer { stored.resetBytes(in: 0..<stored.count) }
            try SecretFile.create(stored, at: configuration.keyPath(session.id))
            try commit(changes)
        } catch {
            ledger.truncate(to: count)
            // If the transaction is stored after all, the session has no key, and ends at the next start with its charge.
            keysToErase.insert(session.id)
            try? settle()
            eraseLingeringKeys()
            throw error
        }
        self.count(session.caller.domain, from: nil, to: .granted)
    }

    /// Erases the key of a session that is not granted any more.
    ///
    /// - Throws: `CoordinationError` `storage_failed`; it is tried again every second.
    func eraseKey(_ id: String) throws {
        keysToErase.insert(id)
        try SecretFile.erase(configuration.keyPath(id))
        keysToErase.remove(id)
    }

    /// Erases the keys that could not be erased at their time; a database that cannot be asked decides nothing.
    private func eraseLingeringKeys() {
        for id in keysToErase {
            do {
                if try store.session(id)?.state == .granted { keysToErase.remove(id) } else { try eraseKey(id) }
            } catch { continue }
        }
    }

    // MARK: - Looking and ending

    /// A session, for its creator alone.
    ///
    /// - Throws: `CoordinationError` `session_unknown`.
    func session(_ id: String, of caller: ServerCaller) throws -> SessionRecord {
        try settle()
        guard ContentHash(id) != nil, let session = try store.session(id), session.caller == caller else {
            throw CoordinationError(
                .notFound,
                HelperCode.sessionUnknown.rawValue,
                "this server has no such session here"
            )
        }
        return session
    }

    package func sessionView(_ id: String, of caller: ServerCaller) throws -> HelperSessionView {
        let session = try session(id, of: caller)
        guard session.state.isOpen, session.expiresAt <= now, sums[id] == nil else { return try view(session) }
        try expire(session)
        return try view(self.session(id, of: caller))
    }

    /// Gives up a session whose sum was not made; its charge is given back, and its key erased.
    ///
    /// - Throws: `CoordinationError` `session_spent` if its sum was made.
    package func cancelSession(_ id: String, of caller: ServerCaller) async throws {
        while let running = sums[id] { _ = try? await running.value }
        let session = try session(id, of: caller)
        switch session.state {
        case .granted:
            try end(session, as: .cancelled, charge: .released)
        case .cancelled, .expired: try eraseKey(id)
        case .summed, .acknowledged: throw Self.spent
        }
    }

    static let spent = CoordinationError(
        .conflict,
        HelperCode.sessionSpent.rawValue,
        "the session's sum was made, and a session has one: its charge stays"
    )

    /// Ends a session before its sum: first the transaction, then its key.
    func end(_ session: SessionRecord, as state: HelperSessionState, charge: ChargeState) throws {
        var ended = session
        ended.state = state
        let count = ledger.ledger.rows.count
        do {
            var changes: [HelperChange] = [.session(ended)]
            let budget = domains[session.caller.domain]?.budget
            if let row = try ledger.settle(session, as: charge, budget, at: now) { changes.append(.ledger(row)) }
            try commit(changes)
        } catch {
            ledger.truncate(to: count)
            throw error
        }
        self.count(session.caller.domain, from: session.state, to: state)
        try eraseKey(session.id)
    }

    /// Ends what has run out by the helper's clock: granted sessions with their charge given back, sums without it.
    func expire(_ session: SessionRecord) throws {
        switch session.state {
        case .granted: try end(session, as: .expired, charge: .released)
        case .summed: try drop(session)
        case .acknowledged, .cancelled, .expired: break
        }
    }

    /// Called every second.
    package func tick() throws {
        try settle()
        for state in [HelperSessionState.granted, .summed] {
            for session in try store.sessions(in: state, endingBy: now) where sums[session.id] == nil {
                try expire(session)
            }
        }
        eraseLingeringKeys()
        if ledger.trouble != nil { ledger.writeRecord(configuration) }
    }

    func view(_ session: SessionRecord) throws -> HelperSessionView {
        HelperSessionView(
            session: session.id,
            state: session.state,
            domain: session.caller.domain,
            server: session.caller.server,
            purpose: session.purpose,
            run: session.run,
            round: session.round,
            attempt: session.attempt,
            document: Data(session.document).base64EncodedString(),
            grant: Data(session.grant).base64EncodedString(),
            expiresAt: session.expiresAt.wireTimestamp,
            listSha256: session.listHash,
            sumSha256: session.sumHash
        )
    }
}
