import Foundation
import Logging
package import WireFormat

extension Coordinator {
    // MARK: - Callers

    /// Whose token it is, or `nil` when it is not known, expired or revoked.
    package func principal(token: String) -> Principal? {
        let hash = Secrets.sha256(Array(token.utf8))
        // The token is looked up by its hash: the time of the look-up says nothing about any token's text.
        guard let record = tokens[hash], !isExpired(record) else { return nil }
        switch record.role {
        case .enrollment: return record.populationId.map { .enrollment(population: $0, tokenHash: hash) }
        case .client:
            guard let id = record.clientId, clients[id]?.state != .revoked else { return nil }
            return .client(id: id)
        case .viewer, .operator, .admin:
            guard let role = record.role.staffRole else { return nil }
            tokenLastUsed[record.id] = now
            AuditTrail.current?.identify(tokenID: record.id, name: record.name, role: role)
            return .staff(role: role, tokenID: record.id)
        }
    }

    static let certificateMismatch = CoordinationError(
        .unauthorized,
        "certificate_mismatch",
        "the client registered with another certificate; its token counts together with that one only"
    )

    /// Whose token it is, when the connection shows the certificate that goes with it.
    package func principal(token: String, certificateKey: String?) throws -> Principal? {
        let found = principal(token: token)
        if case .client(let id) = found, let bound = clients[id]?.certificateKey, bound != certificateKey {
            throw Self.certificateMismatch
        }
        if case .client = found { endEarlierRegistrations(token) }
        return found
    }

    /// Whether using the token changes nothing that is stored.
    func isSettled(_ token: String) -> Bool {
        guard let record = tokens[Secrets.sha256(Array(token.utf8))] else { return true }
        return tokens.earlierRegistrations(than: record).isEmpty
    }

    /// A client that uses the token of a repeated registration has read that answer: the token before it ends.
    private func endEarlierRegistrations(_ token: String) {
        guard let record = tokens[Secrets.sha256(Array(token.utf8))] else { return }
        let earlier = tokens.earlierRegistrations(than: record)
        guard !earlier.isEmpty else { return }
        do {
            try commit(earlier.map { .deleteToken(hash: $0.hash) })
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
                    hash: Secrets.sha256(Array(token.utf8)),
                    role: .admin,
                    name: "first administrator",
                    createdAt: now
                )
            )
        ])
        return token
    }

    /// The settings that name files with tokens; a token of such a file has the setting's name.
    private static let tokenFileSettings: Set<String> = ["admin_token_file", "viewer_token_file"]

    /// Makes a given text, the content of a file that a setting names, a token of the role.
    ///
    /// The text that the file held before ends with that: it may have been replaced because it leaked.
    ///
    /// - Throws: ``CoordinationError`` with code `token_in_use` where the text is a token of another kind already.
    package func ensureToken(_ text: String, role: StaffRole, name: String) throws {
        let hash = Secrets.sha256(Array(text.utf8))
        if let other = tokens[hash], other.role != role.tokenRole {
            throw CoordinationError(
                .conflict,
                "token_in_use",
                "\(name) holds the text of a token with the role \(other.role); give it one of its own"
            )
        }
        var changes: [StoreChange] = tokens.listedTexts.filter {
            $0.name == name && $0.createdBy == nil && $0.role == role.tokenRole && $0.hash != hash
        }.map { .deleteToken(hash: $0.hash) }
        if tokens[hash] == nil {
            changes.append(.token(TokenRecord(hash: hash, role: role.tokenRole, name: name, createdAt: now)))
        }
        if !changes.isEmpty { try commit(changes) }
    }

    // MARK: - Tokens

    /// Makes a viewer's, operator's or administrator's token.
    package func createToken(_ request: TokenRequest, by creator: String) throws -> IssuedToken {
        let token = Secrets.token()
        let record = TokenRecord(
            hash: Secrets.sha256(Array(token.utf8)),
            role: request.role.tokenRole,
            name: request.name,
            createdBy: creator,
            expiresAt: request.expiresInS.map { now.addingTimeInterval($0) },
            createdAt: now
        )
        try commit([.token(record)])
        return IssuedToken(token: token, view: view(record))
    }

    /// All tokens but those of clients, oldest first; a rotated one is shown once.
    package func listTokens(after cursor: Int = 0, limit: Int) -> Listing<TokenView> {
        let found = tokens.listed(after: cursor, limit: limit)
        return Listing(items: found.records.map(view), next: found.next)
    }

    /// One token by its id.
    package func token(_ id: String) throws -> TokenView { view(try tokenRecord(id)) }

    /// The token that the caller presented.
    package func token(presented: String) throws -> TokenView { view(try tokenRecord(presented: presented)) }

    /// Gives a token a new text; its id, role, name and expiry stay.
    ///
    /// The old text goes on working for `gracePeriod` seconds; every other text ends, so that no more than two ever work.
    package func rotateToken(_ id: String, gracePeriod: Double) throws -> IssuedToken {
        try rotate(try tokenRecord(id), gracePeriod: gracePeriod)
    }

    /// Gives the presented token a new text.
    package func rotateToken(presented: String, gracePeriod: Double) throws -> IssuedToken {
        try rotate(try tokenRecord(presented: presented), gracePeriod: gracePeriod)
    }

    /// Revokes a token at once, under its old texts too.
    package func revokeToken(_ id: String) throws {
        let record = try tokenRecord(id)
        guard record.role != .admin || tokens.hasPermanentAdmin(besides: record.id) else {
            throw CoordinationError(
                .conflict,
                "last_admin_token",
                "this is the last administrator's token that does not expire; make another one first"
            )
        }
        try commit(tokens.texts(id: record.id).map { .deleteToken(hash: $0.hash) })
        tokenLastUsed[record.id] = nil
    }

    private func rotate(_ record: TokenRecord, gracePeriod: Double) throws -> IssuedToken {
        guard record.role != .enrollment else {
            throw CoordinationError(
                .conflict,
                "not_rotatable",
                "an enrollment token counts its uses; revoke it and make another one"
            )
        }
        guard record.createdBy != nil || !Self.tokenFileSettings.contains(record.name ?? "") else {
            throw CoordinationError(
                .conflict,
                "not_rotatable",
                "the token is what \(record.name ?? "a file") holds; write another text there and start the server again"
            )
        }
        guard !isExpired(record) else {
            throw CoordinationError(.conflict, "token_expired", "the token has expired; make another one")
        }
        let token = Secrets.token()
        let texts = tokens.texts(like: record)
        // The newest text has the token's own expiry; that of the presented one may be the end of a grace period. Whoever
        // presents the old text again has not read the answer with the newest one, which ends.
        var renewed = texts.last { $0.id == record.id } ?? record
        renewed.hash = Secrets.sha256(Array(token.utf8))
        renewed.createdAt = now
        var changes: [StoreChange] = texts.filter { gracePeriod == 0 || $0.hash != record.hash }.map {
            .deleteToken(hash: $0.hash)
        }
        if gracePeriod > 0 {
            var old = record
            old.expiresAt = min(record.expiresAt ?? .distantFuture, now.addingTimeInterval(gracePeriod))
            changes.append(.token(old))
        }
        try commit(changes + [.token(renewed)])
        return IssuedToken(token: token, view: view(renewed))
    }

    func isExpired(_ record: TokenRecord) -> Bool { record.expiresAt.map { $0 < now } ?? false }

    /// The newest record with the id: the other ones are old texts of it.
    private func tokenRecord(_ id: String) throws -> TokenRecord {
        guard let found = tokens.texts(id: id).last else {
            throw CoordinationError(.notFound, "not_found", "no token '\(id)'")
        }
        return found
    }

    private func tokenRecord(presented: String) throws -> TokenRecord {
        guard let record = tokens[Secrets.sha256(Array(presented.utf8))] else {
            throw CoordinationError(.notFound, "not_found", "the token is not known any more")
        }
        return record
    }

    /// Removes records of tokens that have expired, some at a time.
    func removeExpiredTokens() {
        let hashes = tokens.removable(at: now, limit: 500)
        guard !hashes.isEmpty else { return }
        let ids = hashes.compactMap { tokens[$0]?.id }
        do {
            try commit(hashes.map { .deleteToken(hash: $0) })
            for id in ids where tokens.texts(id: id).isEmpty { tokenLastUsed[id] = nil }
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

    func view(_ record: TokenRecord) -> TokenView {
        TokenView(
            id: record.id,
            role: record.role,
            name: record.name,
            population: record.populationId,
            client: record.clientId,
            usesLeft: record.usesLeft,
            createdAt: record.createdAt.wireTimestamp,
            createdBy: record.createdBy,
            expiresAt: record.expiresAt?.wireTimestamp,
            lastUsedAt: tokenLastUsed[record.id]?.wireTimestamp
        )
    }

    // MARK: - Audit

    /// Leaves the row of a request that changed nothing; nothing happens when a transaction has taken the row already.
    package func auditRefusal(_ trail: AuditTrail, code: String) {
        guard let row = trail.take(at: now, refusal: code) else { return }
        do { try write([.audit(row)]) } catch {
            logger.error("A refused action could not be audited", metadata: ["error": "\(error)"])
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
    package nonisolated func auditRows(_ query: AuditQuery) async throws -> [AuditRow] { try store.audit(query) }
}
