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
            of: caller,
            run: request.run,
            purpose: request.purpose,
            round: request.round
        ) {
            if latest.requestHash == requestHash, latest.state == .granted, !isOver(latest) {
                try ledger.requireNoAlarm()
                return (try view(latest), false)
            }
            try Self.checkAttempt(request.attempt, after: latest)
        }
        try requireTrust()
        try checkRoom(domain)
        let key = try SessionKey()
        let end = UInt64(max(0, now.timeIntervalSince1970)) + UInt64(request.expiresInS)
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
        // The transaction itself may have shown that this database is not the newest.
        try ledger.requireNoAlarm()
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
        var session = session
        do {
            var changes: [HelperChange] = []
            if let charge, let budget = domain.budget {
                changes.append(.ledger(try ledger.reserve(charge, for: session, budget, at: now)))
            }
            Failpoint.reach()
            var stored = key.stored
            defer { stored.resetBytes(in: 0..<stored.count) }
            // Until the transaction is known to be stored, the key is one to erase.
            keysToErase.insert(session.id)
            session.keyFile = try SecretFile.create(stored, at: configuration.keyPath(session.id))
            deadlines[session.id] =
                configuration.uptime() + session.expiresAt.timeIntervalSince(session.createdAt).rounded(.up)
            try commit([.session(session)] + changes)
        } catch {
            ledger.truncate(to: count)
            try? settle()
            eraseWhatIsOwed()
            throw error
        }
        // The transaction may have shown that the session has to end, and its key may not be erased yet.
        if ledger.alarm == nil { keysToErase.remove(session.id) }
        self.count(session.caller.domain, from: nil, to: .granted)
    }

    /// Erases the key of a session that is not granted any more.
    ///
    /// - Throws: `CoordinationError` `storage_failed`; it is tried again every second.
    func eraseKey(_ id: String) throws {
        keysToErase.insert(id)
        try SecretFile.erase(configuration.keyPath(id))
        keysToErase.remove(id)
        deadlines[id] = nil
        refusedLists[id] = nil
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
        guard session.state.isOpen, isOver(session), sums[id] == nil else { return try view(session) }
        try expire(session)
        return try view(self.session(id, of: caller))
    }

    /// Gives up a session whose sum was not made; its charge is given back, and its key erased.
    ///
    /// - Throws: `CoordinationError` `session_spent` if its sum was made.
    package func cancelSession(_ id: String, of caller: ServerCaller) async throws {
        await settled(id)
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
    ///
    /// While the ledger is in doubt another history may have opened the seeds, so nothing is given back.
    func end(_ session: SessionRecord, as state: HelperSessionState, charge: ChargeState) throws {
        if charge == .released {
            // Before a charge is given back the second record is looked at, which may end the session by itself.
            bringUpRecord()
            guard try store.session(session.id)?.state == session.state else { return }
        }
        var ended = session
        ended.state = state
        let charge = ledger.alarm == nil ? charge : .committed
        let count = ledger.ledger.rows.count
        // If the transaction fails and is stored after all, the key still goes.
        keysToErase.insert(session.id)
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
        try checkClock()
        for state in [HelperSessionState.granted, .summed] {
            for session in try store.sessions(in: state, endingBy: now) where sums[session.id] == nil {
                try expire(session)
            }
        }
        let uptime = configuration.uptime()
        for (id, deadline) in deadlines where deadline <= uptime && sums[id] == nil {
            if let session = try store.session(id), session.state.isOpen { try expire(session) }
            deadlines[id] = nil
        }
        try retryWhatIsOwed()
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
