import Foundation
import Testing
import WireFormat

@testable import Coordination

struct ClientTableTests {
    private let start = Date(timeIntervalSince1970: 1_800_000_000)

    private func record(_ id: String, _ state: ClientStanding = .active, generation: Int? = nil) -> ClientRecord {
        var record = ClientRecord(id: id, populationId: "p", labels: "{}", state: state, registeredAt: start)
        if let generation { record.generation = ClientGeneration(issued: generation, confirmed: generation) }
        return record
    }

    private func table(_ records: ClientRecord...) -> ClientTable {
        var table = ClientTable()
        for record in records { table.set(record) }
        return table
    }

    private func register(
        _ table: ClientTable,
        key: String?,
        certificate: String? = nil,
        tokens: TokenTable = TokenTable()
    ) throws -> (client: String, changes: [StoreChange]) {
        let token = TokenRecord(hash: "enroll", role: .enrollment, populationId: "p", usesLeft: 5, createdAt: start)
        return try table.registering(
            RegistrationRequest(name: "phone"),
            with: (token, "p"),
            tokenHash: "new",
            idempotencyKey: key,
            certificateKey: certificate,
            tokens: tokens,
            at: start
        )
    }

    @Test("A registration that is sent again is the same client, and keeps the text that it may be using.")
    func repeatedRegistration() throws {
        var table = ClientTable()
        let (id, first) = try register(table, key: "k", certificate: "c")
        for case .client(let record) in first { table.set(record) }
        #expect(first.contains { if case .token(let token) = $0 { token.usesLeft == 4 } else { false } })
        var tokens = TokenTable()
        for hash in ["h1", "h2"] {
            tokens.set(TokenRecord(hash: hash, role: .client, clientId: id, createdAt: start))
        }
        let (again, second) = try register(table, key: "k", certificate: "c", tokens: tokens)
        #expect(again == id)
        let deleted = second.compactMap { if case .deleteToken(let hash) = $0 { hash } else { nil } }
        #expect(deleted == ["h2"])
        #expect(!second.contains { if case .client = $0 { true } else { false } })
        let other = try register(table, key: "other").client
        #expect(other != id)
        let refused = #expect(throws: CoordinationError.self) { try register(table, key: "k", certificate: "d") }
        #expect(refused?.code == "certificate_mismatch")
    }

    @Test("A revoked client does not change, and is revoked once.")
    func revocation() throws {
        let table = table(record("a"), record("b", .revoked))
        #expect(try table.revoking("a")?.state == .revoked)
        #expect(try table.revoking("b") == nil)
        let refused = #expect(throws: CoordinationError.self) { try table.changing("b", ClientChange(name: "x")) }
        #expect(refused?.code == "client_revoked")
        #expect(try table.changing("a", ClientChange(name: "x", labels: ["tier": "1"])).labels == #"{"tier":"1"}"#)
        #expect(throws: CoordinationError.self) { try table.client("nobody") }
    }

    @Test("A client whose update stood out is quarantined where its run asks for that, and released once.")
    func quarantine() throws {
        var table = table(record("a"), record("b"))
        func score(_ client: String, run: String) -> UpdateScoreRecord {
            UpdateScoreRecord(
                runId: run,
                round: 3,
                attempt: 1,
                assignmentId: "asg",
                clientId: client,
                exampleCount: 1,
                norm: 9,
                normRatio: 9,
                cosine: nil,
                counted: false,
                reason: "too long"
            )
        }
        let scores = [score("a", run: "r1"), score("b", run: "r2"), score("gone", run: "r1")]
        let found = table.quarantining(scores, at: start) { $0 == "r1" }
        #expect(found.map(\.client.id) == ["a"])
        #expect(found.first?.client.quarantineReason == "round 3 of r1: too long")
        for (_, client) in found { table.set(client) }
        #expect(table.counts(working: 0, isSecret: false, at: start).byState["quarantined"] == 1)
        #expect(try table.releasing("a")?.quarantinedAt == nil)
        #expect(try table.releasing("b") == nil)
    }

    @Test("A state that has gone on elsewhere is refused, and a number that was never given is noted once.")
    func generations() throws {
        var table = table(record("a", generation: 5), record("b", generation: 1))
        let known = try table.noteGeneration(of: "a", stated: 5)
        let refused = #expect(throws: CoordinationError.self) { try table.noteGeneration(of: "a", stated: 4) }
        #expect(!known && refused?.code == "state_cloned")
        let first = try table.noteGeneration(of: "a", stated: 8)
        let second = try table.noteGeneration(of: "b", stated: 8)
        #expect(first && !second)
        #expect(table.ahead == ["a", "b"] && table["a"]?.generation?.issued == 8)
    }

    @Test("Who works, and who has worked, is one number while a run draws in secret.")
    func secretCounts() {
        var table = table(record("a"), record("b"), record("c", .registered), record("d", .revoked))
        table.noteSeen("a", at: start)
        let shown = table.counts(working: 1, isSecret: false, at: start)
        #expect(shown.byState == ["active": 1, "offline": 1, "registered": 1, "revoked": 1])
        let secret = table.counts(working: 1, isSecret: true, at: start)
        #expect(secret.byState == ["enrolled": 3, "revoked": 1])
    }

    @Test("A table that is read again counts each client at work once, and remembers when it was seen.")
    func readAgain() {
        var table = table(record("a"), record("b"))
        table.noteSeen("a", at: start)
        table.removeAll()
        #expect(table.count == 0 && table.presence.lastSeen("a") == start)
        table.set(record("a"))
        #expect(table.presence.workerCount(at: start) == 1)
    }

    @Test("What a client says of itself is parsed again when it says something else.")
    func profiles() {
        let table = ClientTable()
        var client = record("a")
        client.labels = #"{"tier": "slow"}"#
        #expect(table.profile(of: client).labels == ["tier": "slow"])
        client.labels = #"{"tier": "fast"}"#
        let copy = table
        #expect(copy.profile(of: client).labels == ["tier": "fast"])
    }

    @Test("The counts of a changed client are told before the change is made.")
    func countsWithAChange() {
        let table = table(record("a", .registered), record("b", .active))
        #expect(table.stateCounts(with: record("a", .active)).shown == ["active": 2])
        #expect(table.stateCounts(with: record("c", .registered)).shown == ["registered": 2, "active": 1])
    }
}
