import Coordination
import Foundation
import HelperService
import TestSupport
import Testing
import WireFormat

/// What is put back, moved or altered behind a helper, in domains with and without a budget.
@Suite(.timeLimit(.minutes(10)))
struct RestoreTests {
    private let server = HelperFixture.server

    private func request(
        _ fixture: HelperFixture,
        round: Int = 1,
        attempt: Int = 1,
        _ hasBudget: Bool
    ) -> HelperSessionRequest {
        fixture.request(round: round, attempt: attempt, noiseMultiplier: hasBudget ? 1 : nil)
    }

    /// Puts a copy in the place of what is there, as after a loss.
    private func putBack(_ saved: String, _ fixture: HelperFixture) async throws {
        fixture.helper = try await HelperFixture().helper
        try FileManager.default.removeItem(atPath: fixture.directory)
        try FileManager.default.copyItem(atPath: saved, toPath: fixture.directory)
    }

    /// A copy with keys is put back after a sum: another sum of the session would tell their difference.
    @Test(arguments: [true, false], [true, false])
    func aCopyThatIsPutBackMakesNoSecondSum(hasBudget: Bool, recordIsElsewhere: Bool) async throws {
        let place = try TemporaryDirectory()
        defer { withExtendedLifetime(place) {} }
        let elsewhere = place.path
        let fixture = try await HelperFixture(epsilon: hasBudget ? 100 : nil) {
            if recordIsElsewhere { $0.ledgerHeadPath = elsewhere + "/head" }
        }
        let session = try await fixture.grant(request(fixture, hasBudget))
        let members = try devices(4, of: session)
        let saved = elsewhere + "/saved"
        try FileManager.default.copyItem(atPath: fixture.directory, toPath: saved)
        _ = try await fixture.helper.makeSum(session.session, of: server, list: try list(members))
        try await putBack(saved, fixture)
        try await fixture.restart()
        #expect(try await fixture.helper.status().ledgerRecord == (recordIsElsewhere ? "alarm" : "kept"))
        let fewer = try list(Array(members.dropLast()))
        let refusal = await code {
            _ = try await fixture.helper.makeSum(session.session, of: server, list: fewer)
        }
        #expect(refusal == "session_expired")
        #expect(try fixture.names("keys").isEmpty && fixture.names("sums").isEmpty)
        if recordIsElsewhere {
            let next = request(fixture, round: 2, hasBudget)
            #expect(await code { _ = try await fixture.grant(next) } == "ledger_rolled_back")
            #expect(try await fixture.helper.acknowledge(reason: "restored").ledgerRecord == "kept")
        }
        if hasBudget { #expect(try await fixture.domain().budget?.spentEpsilon ?? 0 > 1) }
        _ = try await fixture.grant(request(fixture, round: 2, hasBudget))
    }

    /// The state of a database goes back while the second record stays, at each change of a session.
    @Test(arguments: [true, false], ["grant", "sum", "delete", "cancel"])
    func everyChangeOfASessionIsInTheSecondRecord(hasBudget: Bool, change: String) async throws {
        let place = try TemporaryDirectory()
        defer { withExtendedLifetime(place) {} }
        let elsewhere = place.path
        let fixture = try await HelperFixture(epsilon: hasBudget ? 100 : nil) {
            $0.ledgerHeadPath = elsewhere + "/head"
        }
        let session = try await fixture.grant(request(fixture, hasBudget))
        let bytes = try list(try devices(3, of: session))
        if change == "delete" { _ = try await fixture.helper.makeSum(session.session, of: server, list: bytes) }
        let saved = elsewhere + "/saved"
        try FileManager.default.copyItem(atPath: fixture.directory, toPath: saved)
        switch change {
        case "grant": _ = try await fixture.grant(request(fixture, round: 2, hasBudget))
        case "sum": _ = try await fixture.helper.makeSum(session.session, of: server, list: bytes)
        case "delete": try await fixture.helper.deleteSum(session.session, of: server)
        default: try await fixture.helper.cancelSession(session.session, of: server)
        }
        try await putBack(saved, fixture)
        try await fixture.restart()
        #expect(try await fixture.helper.status().ledgerRecord == "alarm")
        #expect(try fixture.names("keys").isEmpty && fixture.names("sums").isEmpty)
        _ = try await fixture.helper.acknowledge(reason: "restored")
        try await fixture.restart()
        #expect(try await fixture.helper.status().ledgerRecord == "kept")
    }

    // MARK: - An alarm at start and while running

    /// Two copies with one second record: the one that comes second learns it from its own transaction, and keeps its sum to itself.
    @Test(arguments: [true, false], ["grant", "late grant", "sum", "late sum", "cancel", "look", "tick"])
    func anAlarmWhileRunningIsOneAtStart(hasBudget: Bool, step: String) async throws {
        let place = try TemporaryDirectory()
        defer { withExtendedLifetime(place) {} }
        let elsewhere = place.path
        let head = elsewhere + "/head"
        let fixture = try await HelperFixture(epsilon: hasBudget ? 100 : nil) { $0.ledgerHeadPath = head }
        let helper = fixture.helper
        let kept = try await fixture.grant(request(fixture, round: 7, hasBudget))
        _ = try await helper.makeSum(kept.session, of: server, list: try list(try devices(2, of: kept)))
        let open = try await fixture.grant(request(fixture, hasBudget))
        let openList = try list(try devices(3, of: open))
        let before = try await fixture.domain().budget
        // The record of another history, which is longer.
        let other = try await HelperFixture(
            epsilon: hasBudget ? 100 : nil,
            policy: HelperPolicy(
                minimum: 2,
                maximum: 100,
                leastNoise: hasBudget ? 0.5 : 0,
                openSessions: 100
            )
        )
        for round in 3...9 { _ = try await other.grant(request(other, round: round, hasBudget)) }
        let record = try Data(contentsOf: URL(fileURLWithPath: other.directory + "/ledger.head"))
        if step.hasPrefix("late") {
            // It appears while the transaction is made, after everything was looked at.
            fixture.faults.fail(nil) { try? record.write(to: URL(fileURLWithPath: head)) }
        } else {
            try record.write(to: URL(fileURLWithPath: head))
        }
        let next = request(fixture, round: 2, hasBudget)
        let found: String?
        switch step {
        case "grant", "late grant": found = await code { _ = try await fixture.grant(next) }
        case "sum", "late sum":
            found = await code { _ = try await helper.makeSum(open.session, of: server, list: openList) }
        case "cancel": found = await code { try await helper.cancelSession(open.session, of: server) }
        case "look":
            fixture.clock.advance(by: 8 * 86_400)
            found = await code { _ = try await helper.sessionView(open.session, of: server) }
        default:
            fixture.clock.advance(by: 8 * 86_400)
            found = await code { try await helper.tick() }
        }
        #expect(fixture.faults.isOver)
        #expect(found == (["cancel", "look", "tick"].contains(step) ? nil : "ledger_rolled_back"))
        #expect(try await helper.status().ledgerRecord == "alarm")
        let later = request(fixture, round: 50, hasBudget)
        #expect(await code { _ = try await fixture.grant(later) } == "ledger_rolled_back")
        #expect(await code { _ = try await helper.sumFile(kept.session, of: server) } == "ledger_rolled_back")
        #expect(try fixture.stored().states.values.allSatisfy { $0 != "granted" && $0 != "summed" })
        #expect(try fixture.names("keys").isEmpty && fixture.names("sums").isEmpty)
        if let before {
            let after = try #require(try await fixture.domain().budget)
            #expect(after.reservedEpsilon == 0, "nothing is given back")
            #expect(after.spentEpsilon >= (before.spentEpsilon + before.reservedEpsilon) * (1 - 1e-9))
        }
        _ = try await helper.acknowledge(reason: "the clone is off")
        #expect(
            await code { _ = try await helper.makeSum(open.session, of: server, list: openList) } == "session_expired"
        )
        _ = try await fixture.grant(request(fixture, round: 20, hasBudget))
        try await fixture.restart()
        #expect(try await fixture.helper.status().ledgerRecord == "kept")
    }

    /// Under an alarm nothing is given back, at start and while running.
    @Test(arguments: [true, false])
    func aRecordThatIsNotThereIsWaitedFor(putsItBack: Bool) async throws {
        let place = try TemporaryDirectory()
        defer { withExtendedLifetime(place) {} }
        let elsewhere = place.path
        let head = elsewhere + "/head"
        let fixture = try await HelperFixture(epsilon: 100) { $0.ledgerHeadPath = head }
        let session = try await fixture.grant(request(fixture, true))
        let bytes = try list(try devices(3, of: session))
        let other = try await fixture.grant(request(fixture, round: 2, true))
        let reserved = try #require(try await fixture.domain().budget?.reservedEpsilon)
        try FileManager.default.moveItem(atPath: head, toPath: head + ".away")
        try await fixture.restart()
        #expect(try await fixture.helper.status().ledgerRecord == "alarm")
        #expect(
            await code { _ = try await fixture.helper.makeSum(session.session, of: server, list: bytes) }
                == "ledger_rolled_back"
        )
        #expect(try fixture.names("keys").count == 2, "the message says to put it back")
        if putsItBack {
            try FileManager.default.moveItem(atPath: head + ".away", toPath: head)
            try await fixture.restart()
            _ = try await fixture.helper.makeSum(session.session, of: server, list: bytes)
        } else {
            try await fixture.helper.cancelSession(other.session, of: server)
            let spent = try #require(try await fixture.domain().budget?.spentEpsilon)
            #expect(spent > 1, "what another history may have summed is not given back")
            _ = try await fixture.helper.acknowledge(reason: "the disk is lost")
            #expect(try fixture.names("keys").isEmpty)
            #expect(try await fixture.domain().budget?.spentEpsilon == reserved)
        }
    }

    // MARK: - What was lost

    /// A domain that was made after the backup, and a budget that was lowered after it, come back as they were.
    @Test func whatABackupDoesNotKnowIsChargedAllTheSame() async throws {
        let place = try TemporaryDirectory()
        defer { withExtendedLifetime(place) {} }
        let elsewhere = place.path
        let fixture = try await HelperFixture(epsilon: 100) { $0.ledgerHeadPath = elsewhere + "/head" }
        let saved = elsewhere + "/saved"
        try FileManager.default.copyItem(atPath: fixture.directory, toPath: saved)
        let wanted = HelperDomainRequest(
            name: "voices",
            budget: HelperBudget(epsilon: 20, delta: 1e-5),
            policy: HelperPolicy(minimum: 2, maximum: 100, leastNoise: 0.5)
        )
        _ = try await fixture.helper.createDomain(wanted)
        let voices = ServerCaller(domain: "voices", server: "srv_1")
        for round in 1...2 {
            let view = try await fixture.helper.createSession(request(fixture, round: round, true), by: voices).session
            _ = try await fixture.helper.makeSum(view.session, of: voices, list: try list(try devices(2, of: view)))
        }
        let own = try await fixture.grant(request(fixture, true))
        _ = try await fixture.helper.makeSum(own.session, of: server, list: try list(try devices(2, of: own)))
        _ = try await fixture.helper.changeDomain("keyboards", HelperDomainChange(epsilon: 9))
        let lost = try #require(try await fixture.helper.domainView("voices").budget?.spentEpsilon)
        let spent = try #require(try await fixture.domain().budget?.spentEpsilon)
        try await putBack(saved, fixture)
        try await fixture.restart()
        _ = try await fixture.helper.acknowledge(reason: "restored")
        for restarts in [false, true] {
            if restarts { try await fixture.restart() }
            let budget = try #require(try await fixture.domain().budget)
            #expect(budget.epsilon == 9 && budget.spentEpsilon > spent * (1 - 1e-9))
        }
        let audit = try WireCoding.encode(try await fixture.helper.ledgerAudit("keyboards"))
        #expect(try LedgerAudit(audit, delta: nil, heads: []).problems.isEmpty)
        // Not even a second loss forgets the domain that is not there.
        try FileManager.default.copyItem(atPath: fixture.directory, toPath: saved + "2")
        _ = try await fixture.grant(request(fixture, round: 5, true))
        try await putBack(saved + "2", fixture)
        try await fixture.restart()
        _ = try await fixture.helper.acknowledge(reason: "restored again")
        let larger = HelperDomainRequest(
            name: "voices",
            budget: HelperBudget(epsilon: 21, delta: 1e-5),
            policy: wanted.policy
        )
        #expect(await code { _ = try await fixture.helper.createDomain(larger) } == "policy_refused")
        _ = try await fixture.helper.createDomain(wanted)
        let again = try #require(try await fixture.helper.domainView("voices").budget?.spentEpsilon)
        #expect(again > lost * (1 - 1e-9) && again < lost * 1.2)
        try await fixture.restart()
        #expect(try await fixture.helper.domainView("voices").budget?.spentEpsilon == again)
    }

    /// The record grows by a line a transaction, and what is read back is what was written.
    @Test func theSecondRecordGrowsByWhatATransactionChanges() async throws {
        let fixture = try await HelperFixture(
            epsilon: 1000,
            policy: HelperPolicy(minimum: 2, maximum: 100, leastNoise: 0.1, openSessions: 1000)
        )
        let path = fixture.directory + "/ledger.head"
        func size() throws -> Int { try Data(contentsOf: URL(fileURLWithPath: path)).count }
        var sizes: [Int] = [try size()]
        for round in 1...30 {
            _ = try await fixture.grant(
                fixture.request(run: "run_\(round)", noiseMultiplier: 1 + Double(round) / 100)
            )
            sizes.append(try size())
        }
        let growth = zip(sizes.dropFirst(), sizes).map { $0 - $1 }
        #expect(try #require(growth.max()) < 2000 && growth.allSatisfy { $0 > 0 })
        // A line that was cut off was never relied upon.
        let whole = try Data(contentsOf: URL(fileURLWithPath: path))
        for cut in [1, 100, growth[29] - 1] {
            try whole.dropLast(cut).write(to: URL(fileURLWithPath: path))
            try await fixture.restart()
            #expect(try await fixture.helper.status().ledgerRecord == "kept")
            try whole.write(to: URL(fileURLWithPath: path))
        }
        // In the middle it is damage.
        var damaged = whole
        damaged[sizes[4] + 5] = 0
        try damaged.write(to: URL(fileURLWithPath: path))
        try await fixture.restart()
        #expect(try await fixture.helper.status().ledgerRecord == "alarm")
    }

    // MARK: - Parts that are missing or changed

    @Test func aSumThatABackupDidNotHaveIsGone() async throws {
        let fixture = try await HelperFixture(epsilon: 100)
        for (round, restarts) in [true, false].enumerated() {
            let session = try await fixture.grant(request(fixture, round: round + 1, true))
            let bytes = try list(try devices(2, of: session))
            let sum = try await fixture.helper.makeSum(session.session, of: server, list: bytes)
            try FileManager.default.removeItem(atPath: sum.path)
            if restarts { try await fixture.restart() }
            #expect(
                await code { _ = try await fixture.helper.sumFile(session.session, of: server) } == "session_expired"
            )
            #expect(try await fixture.helper.sessionView(session.session, of: server).state == .acknowledged)
        }
    }

    @Test func anotherKeyThanTheOneThatDevicesPinIsRefused() async throws {
        let fixture = try await HelperFixture()
        let other = try await HelperFixture()
        let path = fixture.directory + "/helper.key"
        let own = try Data(contentsOf: URL(fileURLWithPath: path))
        try Data(contentsOf: URL(fileURLWithPath: other.directory + "/helper.key"))
            .write(to: URL(fileURLWithPath: path))
        #expect(await code { try await fixture.restart() } == "helper_key_changed")
        try own.write(to: URL(fileURLWithPath: path))
        try await fixture.restart()
    }
}
