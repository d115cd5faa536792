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
        case "enrollment": return record.populationId.map { .enrollment(population: $0, tokenHash: hash) }
        case "client":
            guard let id = record.clientId, clients[id]?.state != "revoked" else { return nil }
            return .client(id: id)
        default:
            guard let role = StaffRole(rawValue: record.role) else { return nil }
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
        return found
    }

    /// Makes the first administrator's token when there is none yet; `nil` afterwards.
    package func makeFirstAdminToken() throws -> String? {
        guard !tokens.values.contains(where: { $0.role == "admin" }) else { return nil }
        let token = Secrets.token()
        try commit([
            .token(
                TokenRecord(
                    hash: Secrets.sha256(Array(token.utf8)),
                    role: "admin",
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
        if let other = tokens[hash], other.role != role.rawValue {
            throw CoordinationError(
                .conflict,
                "token_in_use",
                "\(name) holds the text of a token with the role \(other.role); give it one of its own"
            )
        }
        var changes: [StoreChange] = tokens.values.filter {
            $0.name == name && $0.createdBy == nil && $0.role == role.rawValue && $0.hash != hash
        }.map { .deleteToken(hash: $0.hash) }
        if tokens[hash] == nil {
            changes.append(.token(TokenRecord(hash: hash, role: role.rawValue, name: name, createdAt: now)))
        }
        if !changes.isEmpty { try commit(changes) }
    }

    // MARK: - Tokens

    /// Makes a viewer's, operator's or administrator's token.
    package func createToken(_ request: TokenRequest, by creator: String) throws -> IssuedToken {
        let token = Secrets.token()
        let record = TokenRecord(
            hash: Secrets.sha256(Array(token.utf8)),
            role: request.role,
            name: request.name,
            createdBy: creator,
            expiresAt: request.expiresInS.map { now.addingTimeInterval($0) },
            createdAt: now
        )
        try commit([.token(record)])
        return IssuedToken(token: token, view: view(record))
    }

    /// All tokens but those of clients, oldest first; a rotated one is shown once.
    package func listTokens() -> [TokenView] {
        var newest: [String: TokenRecord] = [:]
        for record in tokens.values where record.role != "client" {
            if let other = newest[record.id], other.createdAt > record.createdAt { continue }
            newest[record.id] = record
        }
        return newest.values.sorted { ($0.createdAt, $0.id) < ($1.createdAt, $1.id) }.map(view)
    }

    /// One token by its id.
    package func token(_ id: String) throws -> TokenView { view(try tokenRecord(id)) }

    /// The token that the caller presented.
    package func token(presented: String) throws -> TokenView { view(try tokenRecord(presented: presented)) }

    /// Gives a token a new text; its id, role, name and expiry stay.
    ///
    /// The old text goes on working for `gracePeriod` seconds.
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
        let remaining = tokens.values.contains { $0.role == "admin" && $0.id != record.id && $0.expiresAt == nil }
        guard record.role != "admin" || remaining else {
            throw CoordinationError(
                .conflict,
                "last_admin_token",
                "this is the last administrator's token that does not expire; make another one first"
            )
        }
        try commit(tokens.values.filter { $0.id == record.id }.map { .deleteToken(hash: $0.hash) })
        tokenLastUsed[record.id] = nil
    }

    private func rotate(_ record: TokenRecord, gracePeriod: Double) throws -> IssuedToken {
        guard record.role != "enrollment" else {
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
        var renewed = record
        renewed.hash = Secrets.sha256(Array(token.utf8))
        renewed.createdAt = now
        // A text that an earlier rotation left alive ends as it was to end; only the newest one is given the grace period.
        var changes: [StoreChange] = tokens.values.filter {
            $0.id == record.id && (gracePeriod == 0 || isExpired($0))
        }.map { .deleteToken(hash: $0.hash) }
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
        let found = tokens.values.filter { $0.id == id && $0.role != "client" }
            .max { $0.createdAt < $1.createdAt }
        guard let found else { throw CoordinationError(.notFound, "not_found", "no token '\(id)'") }
        return found
    }

    private func tokenRecord(presented: String) throws -> TokenRecord {
        guard let record = tokens[Secrets.sha256(Array(presented.utf8))] else {
            throw CoordinationError(.notFound, "not_found", "the token is not known any more")
        }
        return record
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
        do { try store.commit([.audit(row)]) } catch {
            logger.error("A refused action could not be audited", metadata: ["error": "\(error)"])
        }
    }

    /// Leaves the row of an action that needed no transaction of the coordinator.
    package func auditCompletion(_ trail: AuditTrail) throws {
        guard let row = trail.take(at: now, refusal: nil) else { return }
        try store.commit([.audit(row)])
    }

    /// Notes that a caller without a token acts, on a server that allows that.
    package nonisolated func identifyOpenCaller() {
        AuditTrail.current?.identify(tokenID: "open", name: nil, role: .admin)
    }

    /// Rows of the audit log, newest first.
    package func auditRows(_ query: AuditQuery) throws -> [AuditRow] { try store.audit(query) }
}
