import Coordination
import Crypto
import DifferentialPrivacy
import Foundation
import HelperService
import SecureAggregation
import TestSupport
import Testing
import WireFormat

/// What a helper grants, and what it refuses.
@Suite(.timeLimit(.minutes(5)))
struct SessionTests {
    @Test func aSessionIsSignedByTheKeyThatDevicesPin() async throws {
        let fixture = try await HelperFixture(epsilon: 8)
        let request = fixture.request(noiseMultiplier: 1)
        let session = try await fixture.grant(request)
        let document = try session.parsed
        try SessionGrant.verify(
            Data(base64Encoded: session.grant) ?? Data(),
            of: document,
            by: fixture.helper.publicKey
        )
        #expect(document.server == "srv_1" && document.domain == "keyboards" && document.run == "run_1")
        #expect(document.norm == UInt64(request.norm) && document.noiseDeviation == request.noiseDeviation)
        #expect(document.expires == UInt64(fixture.clock.now.timeIntervalSince1970) + 7 * 86_400)
        let attributes = try FileManager.default.attributesOfItem(atPath: fixture.keyPath(session))
        #expect(attributes[.posixPermissions] as? Int == 0o600 && attributes[.size] as? Int == 32)
        // The long-lived key stays the same.
        let key = fixture.helper.publicKey.rawRepresentation
        try await fixture.restart()
        #expect(fixture.helper.publicKey.rawRepresentation == key)
        try FileManager.default.removeItem(atPath: fixture.directory + "/helper.key")
        await #expect(throws: CoordinationError.self) { try await fixture.restart() }
    }

    /// A lost answer is asked for again; anything else under the same attempt is another session, and refused.
    @Test func theSameRequestHasTheSameSession() async throws {
        let fixture = try await HelperFixture(epsilon: 8)
        let request = fixture.request(noiseMultiplier: 1)
        let first = try await fixture.helper.createSession(request, by: HelperFixture.server)
        let again = try await fixture.helper.createSession(request, by: HelperFixture.server)
        #expect(first.isNew && !again.isNew && first.session == again.session)
        let spent = try await fixture.domain().budget
        try await fixture.restart()
        #expect(try await fixture.grant(request) == first.session)
        #expect(try await fixture.domain().budget == spent)
        var other = request
        other.step = 0.25
        #expect(await code { _ = try await fixture.grant(other) } == "attempt_conflict")
        // The same words of another server are about a run of its own.
        let stranger = ServerCaller(domain: "keyboards", server: "srv_2")
        let theirs = try await fixture.helper.createSession(request, by: stranger)
        #expect(theirs.isNew && theirs.session.session != first.session.session)
    }

    @Test func aSecondAttemptWaitsForTheEndOfTheFirst() async throws {
        let fixture = try await HelperFixture(epsilon: 100)
        let first = try await fixture.grant(fixture.request(noiseMultiplier: 1))
        let second = fixture.request(attempt: 2, noiseMultiplier: 1)
        #expect(await code { _ = try await fixture.grant(second) } == "attempt_conflict")
        try await fixture.helper.cancelSession(first.session, of: HelperFixture.server)
        #expect(await code { _ = try await fixture.grant(fixture.request(noiseMultiplier: 1)) } == "attempt_conflict")
        let granted = try await fixture.grant(second)
        #expect(granted.attempt == 2 && granted.session != first.session)
        // Other purposes and rounds are others' sessions.
        _ = try await fixture.grant(fixture.request(purpose: .evaluation, noiseMultiplier: 1))
        _ = try await fixture.grant(fixture.request(round: 2, noiseMultiplier: 1))
    }

    @Test func theHelpersPolicyHoldsWhateverTheServerSays() async throws {
        let policy = HelperPolicy(
            minimum: 5,
            maximum: 1000,
            leastNoise: 0.8,
            maxParticipations: 4,
            maxCoordinates: 10,
            openSessions: 2,
            sessions: 3
        )
        let fixture = try await HelperFixture(epsilon: 8, policy: policy)
        var good = fixture.request(noiseMultiplier: 1)
        (good.minimum, good.maximum) = (5, 1000)
        func refused(_ change: (inout HelperSessionRequest) -> Void) async -> String? {
            var request = good
            change(&request)
            let changed = request
            return await code { _ = try await fixture.grant(changed) }
        }
        #expect(await refused { $0.minimum = 4 } == "policy_refused")
        #expect(await refused { $0.maximum = 1001 } == "policy_refused")
        #expect(await refused { $0.maxParticipations = 5 } == "policy_refused")
        #expect(await refused { $0.coordinates = 11 } == "policy_refused")
        // K as large as 1/0.8 of Σ* is admitted, and no larger.
        #expect(await refused { $0.norm = Int(IntegerGaussianSampler.standardDeviation / 0.8) + 1 } == "policy_refused")
        #expect(await refused { ($0.noise, $0.noiseDeviation) = (.none, 0) } == "policy_refused")
        #expect(await refused { $0.noiseDeviation = 1e7 } == "policy_refused")
        #expect(await refused { $0.noiseDeviation = 1000.5 } == "policy_refused")
        // What the document itself does not admit.
        #expect(await refused { $0.bits = 16 } == "invalid_document")
        #expect(await refused { $0.bits = 17 } == "invalid_document")
        #expect(await refused { $0.coordinateBound = $0.norm + 1 } == "invalid_document")
        // n_max · B + 8Σ* is just inside of the ring, and with one grid unit more outside.
        let largest = SessionDocument.largestCoordinateBound(
            width: .bits32,
            norm: UInt64(good.norm),
            noise: .gaussian,
            noiseDeviation: good.noiseDeviation,
            maximum: 1000
        )
        #expect(largest < UInt64(good.norm))
        #expect(await refused { $0.coordinateBound = Int(largest) + 1 } == "invalid_document")
        #expect(try await fixture.domain().sessions == 0, "nothing was granted, and nothing is left of it")
        #expect(try FileManager.default.contentsOfDirectory(atPath: fixture.directory + "/keys").isEmpty)
        good.coordinateBound = Int(largest)
        let first = try await fixture.grant(good)
        good.round = 2
        _ = try await fixture.grant(good)
        #expect(await refused { $0.round = 3 } == "policy_refused", "two sessions are open")
        try await fixture.helper.cancelSession(first.session, of: HelperFixture.server)
        good.round = 3
        let third = try await fixture.grant(good)
        try await fixture.helper.cancelSession(third.session, of: HelperFixture.server)
        #expect(await refused { $0.round = 4 } == "policy_refused", "three sessions in all")
    }

    @Test func aDomainWithoutABudgetHasNoNoiseAndNoPromise() async throws {
        let fixture = try await HelperFixture()
        #expect(await code { _ = try await fixture.grant(fixture.request(noiseMultiplier: 1)) } == "policy_refused")
        _ = try await fixture.grant(fixture.request())
        #expect(await code { _ = try await fixture.helper.ledgerAudit("keyboards") } == "population_without_budget")
    }

    /// z, not what the server says about steps and clipping norms, is charged; cancelled sessions cost nothing.
    @Test func theChargeIsTheNoiseOverTheNorm() async throws {
        let fixture = try await HelperFixture(epsilon: 2.5)
        var request = fixture.request(noiseMultiplier: 2)
        request.step = 1e-200
        let session = try await fixture.grant(request)
        let document = try await fixture.helper.ledgerAudit("keyboards")
        let event = try #require(document.rows.last?.event)
        let charge = try JSONDecoder().decode(PrivacyCharge.self, from: Data(event.utf8))
        #expect(charge.noiseMultiplier == IntegerGaussianSampler.standardDeviation / Double(request.norm))
        #expect(charge.kind == .gaussian && charge.participationCap == 0 && charge.parameterCount == 5)
        let reserved = try #require(try await fixture.domain().budget)
        #expect(reserved.spentEpsilon == 0 && reserved.reservedEpsilon > 1.5)
        // One more would be over the budget.
        #expect(
            await code { _ = try await fixture.grant(fixture.request(round: 2, noiseMultiplier: 2)) }
                == "budget_exhausted"
        )
        try await fixture.helper.cancelSession(session.session, of: HelperFixture.server)
        #expect(try await fixture.domain().budget?.reservedEpsilon == 0)
        let next = try await fixture.grant(fixture.request(round: 2, noiseMultiplier: 2))
        let members = try devices(2, of: next)
        _ = try await fixture.helper.makeSum(next.session, of: HelperFixture.server, list: try list(members))
        let spent = try #require(try await fixture.domain().budget)
        #expect(spent.spentEpsilon == reserved.reservedEpsilon && spent.reservedEpsilon == 0)
        #expect(
            await code { try await fixture.helper.cancelSession(next.session, of: HelperFixture.server) }
                == "session_spent"
        )
    }

    /// The export is the coordinator's form: the same auditor judges it.
    @Test func theLedgerHoldsForAnAuditor() async throws {
        let fixture = try await HelperFixture(epsilon: 8)
        let first = try await fixture.grant(fixture.request(noiseMultiplier: 1))
        _ = try await fixture.helper.makeSum(
            first.session,
            of: HelperFixture.server,
            list: try list(try devices(3, of: first))
        )
        let second = try await fixture.grant(fixture.request(round: 2, noiseMultiplier: 1.5))
        try await fixture.helper.cancelSession(second.session, of: HelperFixture.server)
        _ = try await fixture.grant(fixture.request(purpose: .histogram, noiseMultiplier: 2))
        let document = try WireCoding.encode(try await fixture.helper.ledgerAudit("keyboards"))
        let audit = try LedgerAudit(document, delta: nil, heads: [])
        #expect(audit.problems.isEmpty, "\(audit.problems)")
        #expect(audit.committed == 1 && audit.reserved == 1 && audit.released == 1)
        try await fixture.restart()
        #expect(try WireCoding.encode(try await fixture.helper.ledgerAudit("keyboards")) == document)
    }

    @Test func aSessionIsItsCreatorsAlone() async throws {
        let fixture = try await HelperFixture()
        let session = try await fixture.grant(fixture.request())
        let members = try list(try devices(2, of: session))
        for stranger in [
            ServerCaller(domain: "keyboards", server: "srv_2"), ServerCaller(domain: "voices", server: "srv_1"),
        ] {
            #expect(
                await code { _ = try await fixture.helper.sessionView(session.session, of: stranger) }
                    == "session_unknown"
            )
            #expect(
                await code { _ = try await fixture.helper.makeSum(session.session, of: stranger, list: members) }
                    == "session_unknown"
            )
            #expect(
                await code { try await fixture.helper.cancelSession(session.session, of: stranger) }
                    == "session_unknown"
            )
        }
        for id in ["", "x", "../../helper", String(repeating: "0", count: 64)] {
            #expect(
                await code { _ = try await fixture.helper.sessionView(id, of: HelperFixture.server) }
                    == "session_unknown"
            )
        }
    }

    @Test func aSessionEndsByTheHelpersClock() async throws {
        let fixture = try await HelperFixture(epsilon: 8)
        var request = fixture.request(noiseMultiplier: 1)
        request.expiresInS = 100
        let session = try await fixture.grant(request)
        let members = try list(try devices(2, of: session))
        fixture.clock.advance(by: 101)
        try await fixture.helper.tick()
        #expect(try await fixture.helper.sessionView(session.session, of: HelperFixture.server).state == .expired)
        #expect(!FileManager.default.fileExists(atPath: fixture.keyPath(session)))
        #expect(try await fixture.domain().budget?.reservedEpsilon == 0, "no seed was opened")
        let late = await code {
            _ = try await fixture.helper.makeSum(session.session, of: HelperFixture.server, list: members)
        }
        #expect(late == "session_expired")
        // Without a tick the request itself notices.
        request.round = 2
        let other = try await fixture.grant(request)
        let others = try list(try devices(2, of: other))
        fixture.clock.advance(by: 100)
        let exact = await code {
            _ = try await fixture.helper.makeSum(other.session, of: HelperFixture.server, list: others)
        }
        #expect(exact == "session_expired" && !FileManager.default.fileExists(atPath: fixture.keyPath(other)))
    }

    @Test func budgetsAreLoweredAtWillAndRaisedWithAReason() async throws {
        let fixture = try await HelperFixture(epsilon: 8)
        let session = try await fixture.grant(fixture.request(noiseMultiplier: 1))
        let raise = HelperDomainChange(epsilon: 9)
        #expect(await code { _ = try await fixture.helper.changeDomain("keyboards", raise) } == "reason_required")
        _ = try await fixture.helper.changeDomain("keyboards", HelperDomainChange(epsilon: 0.5))
        // What was reserved under the old budget is not released under the new one.
        let members = try list(try devices(2, of: session))
        let over = await code {
            _ = try await fixture.helper.makeSum(session.session, of: HelperFixture.server, list: members)
        }
        #expect(over == "budget_exhausted")
        _ = try await fixture.helper.changeDomain("keyboards", HelperDomainChange(epsilon: 9, reason: "more rounds"))
        _ = try await fixture.helper.makeSum(session.session, of: HelperFixture.server, list: members)
        try await fixture.restart()
        #expect(try await fixture.domain().budget?.epsilon == 9)
    }
}
