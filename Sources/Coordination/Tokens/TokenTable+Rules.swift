import Foundation
import WireFormat

/// What may be done with tokens: each answer is a refusal, or the changes that one transaction makes durable.
extension TokenTable {
    /// The settings that name files with tokens; a token of such a file has the setting's name.
    private static let fileSettings: Set<String> = ["admin_token_file", "viewer_token_file"]

    /// The record of a presented text, unless it has expired.
    func valid(_ hash: String, at time: Date) -> TokenRecord? {
        records[hash].flatMap { $0.isExpired(at: time) ? nil : $0 }
    }

    /// Whether using a text changes nothing that is stored.
    func isSettled(_ hash: String) -> Bool { records[hash].map { earlierRegistrations(than: $0).isEmpty } ?? true }

    /// The newest record with the id: the other ones are old texts of it.
    func record(id: String) throws(CoordinationError) -> TokenRecord {
        guard let found = texts(id: id).last else {
            throw CoordinationError(.notFound, "not_found", "no token '\(id)'")
        }
        return found
    }

    /// The record of the text that a caller presented.
    func record(presented hash: String) throws(CoordinationError) -> TokenRecord {
        guard let record = records[hash] else {
            throw CoordinationError(.notFound, "not_found", "the token is not known any more")
        }
        return record
    }

    /// Makes the content of a file that a setting names a token of the role; the text that the file held before ends.
    ///
    /// - Throws: ``CoordinationError`` with code `token_in_use` where the text is a token of another kind already.
    func replacingFileToken(
        by hash: String,
        role: TokenRole,
        name: String,
        at time: Date
    ) throws(CoordinationError) -> [StoreChange] {
        if let other = records[hash], other.role != role {
            throw CoordinationError(
                .conflict,
                "token_in_use",
                "\(name) holds the text of a token with the role \(other.role); give it one of its own"
            )
        }
        var changes: [StoreChange] = listedTexts.filter {
            $0.name == name && $0.createdBy == nil && $0.role == role && $0.hash != hash
        }.map { .deleteToken(hash: $0.hash) }
        if records[hash] == nil {
            changes.append(.token(TokenRecord(hash: hash, role: role, name: name, createdAt: time)))
        }
        return changes
    }

    /// Revokes a token under all its texts.
    ///
    /// - Throws: ``CoordinationError`` with code `last_admin_token` where nobody could administer the server afterwards.
    func revoking(id: String) throws(CoordinationError) -> [StoreChange] {
        let record = try record(id: id)
        guard record.role != .admin || hasPermanentAdmin(besides: record.id) else {
            throw CoordinationError(
                .conflict,
                "last_admin_token",
                "this is the last administrator's token that does not expire; make another one first"
            )
        }
        return texts(id: record.id).map { .deleteToken(hash: $0.hash) }
    }

    /// Gives a token a new text; its id, role, name and expiry stay.
    ///
    /// - Parameters:
    ///   - record: The text that is known to the caller.
    ///   - hash: Of the new text.
    ///   - gracePeriod: Seconds for which the old text goes on working; every other text ends, so that no more than two ever work.
    ///   - time: Now.
    /// - Returns: The record of the new text, and the changes that store it.
    /// - Throws: ``CoordinationError`` with code `not_rotatable` or `token_expired`.
    func rotating(
        _ record: TokenRecord,
        to hash: String,
        gracePeriod: Double,
        at time: Date
    ) throws(CoordinationError) -> (renewed: TokenRecord, changes: [StoreChange]) {
        guard record.role != .enrollment else {
            throw CoordinationError(
                .conflict,
                "not_rotatable",
                "an enrollment token counts its uses; revoke it and make another one"
            )
        }
        guard record.createdBy != nil || !Self.fileSettings.contains(record.name ?? "") else {
            throw CoordinationError(
                .conflict,
                "not_rotatable",
                "the token is what \(record.name ?? "a file") holds; write another text there and start the server again"
            )
        }
        guard !record.isExpired(at: time) else {
            throw CoordinationError(.conflict, "token_expired", "the token has expired; make another one")
        }
        let texts = texts(like: record)
        // The newest text has the token's own expiry; that of the presented one may be the end of a grace period. Whoever
        // presents the old text again has not read the answer with the newest one, which ends.
        var renewed = texts.last { $0.id == record.id } ?? record
        renewed.hash = hash
        renewed.createdAt = time
        var changes: [StoreChange] = texts.filter { gracePeriod == 0 || $0.hash != record.hash }.map {
            .deleteToken(hash: $0.hash)
        }
        if gracePeriod > 0 {
            var old = record
            old.expiresAt = min(record.expiresAt ?? .distantFuture, time.addingTimeInterval(gracePeriod))
            changes.append(.token(old))
        }
        return (renewed, changes + [.token(renewed)])
    }

    /// Uses one enrollment of a token for a new client.
    ///
    /// - Throws: ``CoordinationError`` with code `enrollment_exhausted`.
    func enrolling(with enrollment: TokenRecord) throws(CoordinationError) -> StoreChange {
        guard enrollment.usesLeft ?? 1 > 0 else {
            throw CoordinationError(
                .forbidden,
                "enrollment_exhausted",
                "the enrollment token has been used as often as it may be"
            )
        }
        var used = enrollment
        used.usesLeft = enrollment.usesLeft.map { $0 - 1 }
        return .token(used)
    }

    /// Ends the texts of a client that registers again, but for the one that it may still be using.
    ///
    /// A proxy may have repeated the request, and the client never see this answer: what it has now goes on working until the new token
    /// is first used. One that never was makes room, so that no more than two ever live.
    func makingRoom(forClient client: String) -> [StoreChange] {
        let texts = texts(client: client)
        let kept = texts.last { $0.id == texts.first?.id }
        return texts.filter { $0.hash != kept?.hash }.map { .deleteToken(hash: $0.hash) }
    }

    /// Ends the texts before a client's newest one, which it has just used.
    func endingEarlierRegistrations(than hash: String) -> [StoreChange] {
        guard let record = records[hash] else { return [] }
        return earlierRegistrations(than: record).map { .deleteToken(hash: $0.hash) }
    }

    /// A token as it is shown.
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
            lastUsedAt: lastUse(id: record.id)?.wireTimestamp
        )
    }
}

extension TokenRecord {
    /// Whether the token counts no more.
    func isExpired(at time: Date) -> Bool { expiresAt.map { $0 < time } ?? false }
}
