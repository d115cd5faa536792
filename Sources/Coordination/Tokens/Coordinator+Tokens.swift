import Foundation
import Logging
package import WireFormat

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
    package func auditRefusal(_ trail: AuditTrail, code: String, unwritten: Int = 0) {
        guard let row = trail.take(at: now, refusal: code) else { return }
        var rows = [StoreChange.audit(row)]
        if unwritten > 0 {
            var sum = row
            sum.action = "refused requests without a row"
            sum.target = String(unwritten)
            rows.insert(.audit(sum), at: 0)
        }
        do { try write(rows) } catch {
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
    package nonisolated func auditRows(_ query: AuditQuery) async throws -> [AuditRow] {
        try await DispatchQueue.global(qos: .utility).result { [store] in try store.audit(query) }
    }
}
