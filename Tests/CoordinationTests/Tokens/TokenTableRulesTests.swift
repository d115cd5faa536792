import Foundation
import Testing
import WireFormat

@testable import Coordination

struct TokenTableRulesTests {
    private let start = Date(timeIntervalSince1970: 1_800_000_000)

    private func table(_ records: TokenRecord...) -> TokenTable {
        var table = TokenTable()
        for record in records { table.set(record) }
        return table
    }

    private func record(_ hash: String, id: String, _ role: TokenRole, name: String? = nil) -> TokenRecord {
        TokenRecord(hash: hash, id: id, role: role, name: name, createdAt: start)
    }

    private func deleted(_ changes: [StoreChange]) -> [String] {
        changes.compactMap { if case .deleteToken(let hash) = $0 { hash } else { nil } }
    }

    private func stored(_ changes: [StoreChange]) -> [TokenRecord] {
        changes.compactMap { if case .token(let record) = $0 { record } else { nil } }
    }

    @Test("A token counts until its expiry, and not after it.")
    func expiry() {
        var expiring = record("h", id: "t", .viewer)
        expiring.expiresAt = start.addingTimeInterval(10)
        let table = table(expiring)
        #expect(table.valid("h", at: start.addingTimeInterval(10))?.id == "t")
        #expect(table.valid("h", at: start.addingTimeInterval(11)) == nil)
        #expect(table.valid("unknown", at: start) == nil)
    }

    @Test("The last administrator's token that does not expire cannot be revoked.")
    func lastAdministrator() throws {
        var expiring = record("h2", id: "b", .admin)
        expiring.expiresAt = start
        let alone = table(record("h1", id: "a", .admin), expiring)
        let refused = #expect(throws: CoordinationError.self) { try alone.revoking(id: "a") }
        #expect(refused?.code == "last_admin_token")
        #expect(try deleted(alone.revoking(id: "b")) == ["h2"])
        let two = table(record("h1", id: "a", .admin), record("h3", id: "c", .admin))
        #expect(try deleted(two.revoking(id: "a")) == ["h1"])
    }

    @Test("A rotated token has one new text, its old one until the end of the grace period, and no third one.")
    func rotation() throws {
        var earlier = record("h1", id: "a", .operator, name: "ci")
        earlier.createdBy = "tok_admin"
        var known = earlier
        known.hash = "h2"
        let table = table(earlier, known)
        let (renewed, changes) = try table.rotating(known, to: "h3", gracePeriod: 60, at: start)
        #expect(renewed.hash == "h3" && renewed.id == "a" && renewed.name == "ci" && renewed.expiresAt == nil)
        #expect(deleted(changes) == ["h1"])
        #expect(stored(changes).map(\.hash) == ["h2", "h3"])
        #expect(stored(changes).first?.expiresAt == start.addingTimeInterval(60))
        let atOnce = try table.rotating(known, to: "h3", gracePeriod: 0, at: start).changes
        #expect(deleted(atOnce) == ["h1", "h2"] && stored(atOnce).map(\.hash) == ["h3"])
    }

    @Test("Enrollment tokens, tokens of a setting's file and expired tokens get no new text.")
    func notRotatable() {
        func code(_ record: TokenRecord) -> String? {
            let error = #expect(throws: CoordinationError.self) {
                try table(record).rotating(record, to: "new", gracePeriod: 0, at: start.addingTimeInterval(5))
            }
            return error?.code
        }
        #expect(code(record("h", id: "a", .enrollment)) == "not_rotatable")
        #expect(code(record("h", id: "a", .admin, name: "admin_token_file")) == "not_rotatable")
        var expired = record("h", id: "a", .viewer)
        expired.expiresAt = start
        #expect(code(expired) == "token_expired")
    }

    @Test("A setting's file that holds another text ends the text before, and leaves tokens that people made.")
    func fileToken() throws {
        var made = record("h2", id: "b", .admin, name: "admin_token_file")
        made.createdBy = "tok_admin"
        let table = table(record("h1", id: "a", .admin, name: "admin_token_file"), made)
        let changes = try table.replacingFileToken(by: "h3", role: .admin, name: "admin_token_file", at: start)
        #expect(deleted(changes) == ["h1"] && stored(changes).map(\.hash) == ["h3"])
        #expect(try table.replacingFileToken(by: "h1", role: .admin, name: "admin_token_file", at: start).isEmpty)
        let refused = #expect(throws: CoordinationError.self) {
            try table.replacingFileToken(by: "h1", role: .viewer, name: "viewer_token_file", at: start)
        }
        #expect(refused?.code == "token_in_use")
    }

    @Test("An enrollment token enrolls as often as it says.")
    func enrollments() throws {
        var token = record("h", id: "a", .enrollment)
        token.usesLeft = 1
        let used = try #require(stored([TokenTable().enrolling(with: token)]).first)
        #expect(used.usesLeft == 0)
        #expect(throws: CoordinationError.self) { try TokenTable().enrolling(with: used) }
        token.usesLeft = nil
        #expect(try stored([TokenTable().enrolling(with: token)]).first?.usesLeft == nil)
    }

    @Test("When a token was used is known until the token is gone, and through a table that is read again.")
    func uses() {
        var table = table(record("h", id: "a", .viewer))
        table.noteUse(id: "a", at: start)
        table.forgetUses(ids: ["a"])
        #expect(table.view(record("h", id: "a", .viewer)).lastUsedAt == start.wireTimestamp)
        table.removeAll()
        #expect(table.lastUse(id: "a") == start && table.count == 0)
        table.forgetUses(ids: ["a"])
        #expect(table.lastUse(id: "a") == nil)
    }
}
