import Coordination
import Foundation
import HTTPServing
import HTTPTypes
import HelperService
import SecureAggregation
import Synchronization
import TestSupport
import Testing
import WireFormat

/// Domains, servers and clocks that do their worst, and what others still get.
@Suite(.timeLimit(.minutes(10)))
struct HelperIsolationTests {
    private let server = HelperFixture.server
    private let voices = ServerCaller(domain: "voices", server: "srv_9")

    private func fixture() async throws -> HelperFixture {
        let policy = HelperPolicy(minimum: 2, maximum: 100, openSessions: 1000)
        let fixture = try await HelperFixture(policy: policy) { $0.listByteLimit = 300_000 }
        _ = try await fixture.helper.createDomain(HelperDomainRequest(name: "voices", budget: nil, policy: policy))
        return fixture
    }

    /// A long sum of one domain, and others behind it, do not keep another domain's waiting.
    @Test func aSumOfAnotherDomainGoesOnBesideALongOne() async throws {
        let fixture = try await fixture()
        let helper = fixture.helper
        let ended = Counter()
        var tasks: [Task<Void, any Error>] = []
        for round in 1...3 {
            let long = try await fixture.grant(fixture.request(round: round, coordinates: 1_000_000))
            let bytes = try list(try (0..<20).map { try Device($0, try long.parsed, []) })
            tasks.append(
                Task {
                    _ = try await helper.makeSum(long.session, of: HelperFixture.server, list: bytes)
                    ended.add()
                }
            )
        }
        for round in 1...5 {
            let request = fixture.request(run: "run_\(round)")
            let view = try await helper.createSession(request, by: voices).session
            _ = try await helper.makeSum(view.session, of: voices, list: try list(try devices(2, of: view)))
            try await helper.deleteSum(view.session, of: voices)
            // Behind all three it would come after their 60 million words.
            if round == 1 { #expect(ended.count < 3, "the other domain's sums were waited for") }
        }
        for task in tasks { try await task.value }
    }

    private func send(_ router: Router, _ path: String, _ token: String, _ body: any RequestBody) async throws -> Int {
        let request = try ServerRequest(
            method: "POST",
            rawTarget: path,
            headers: [.authorization: "Bearer " + token],
            body: body,
            requestID: "r"
        )
        return await router.handle(request).status
    }

    private final class Counter: Sendable {
        private let value = Mutex(0)
        var count: Int { value.withLock { $0 } }
        func add() { value.withLock { $0 += 1 } }
    }

    /// A body that comes when the test says.
    private final class SlowBody: RequestBody {
        let contentLength: Int?
        private let bytes: Mutex<[UInt8]?>
        private let isOpen = Mutex(false)

        init(_ bytes: [UInt8]) {
            contentLength = bytes.count
            self.bytes = Mutex(bytes)
        }

        func release() { isOpen.withLock { $0 = true } }

        func read() async throws -> [UInt8]? {
            try await wait(for: "the body") { isOpen.withLock { $0 } }
            return bytes.withLock { bytes in
                defer { bytes = nil }
                return bytes
            }
        }
    }

    /// Lists that one domain has on their way leave another its room, and a session has two of them at most.
    @Test func listsOfOneDomainLeaveAnotherItsRoom() async throws {
        let fixture = try await fixture()
        let helper = fixture.helper
        let router = HelperAPI(helper: helper).router()
        let own = try #require(
            try await helper.createToken(domain: "keyboards", HelperTokenRequest(server: "srv_1")).token
        )
        let other = try #require(
            try await helper.createToken(domain: "voices", HelperTokenRequest(server: "srv_9")).token
        )
        var bodies: [SlowBody] = []
        var paths: [String] = []
        var lists: [[UInt8]] = []
        for round in 1...3 {
            let view = try await fixture.grant(fixture.request(round: round))
            paths.append("/v1/helper/sessions/\(view.session)/sum")
            lists.append(try list(try devices(round == 1 ? 2 : 90, of: view)))
        }
        // Two of one session, then a third; then more bytes than the domain may have.
        var answers: [Task<Int, any Error>] = []
        let answered = Counter()
        func start(_ session: Int) async throws {
            let body = SlowBody(lists[session])
            bodies.append(body)
            answers.append(
                Task { [path = paths[session]] in
                    defer { answered.add() }
                    return try await send(router, path, own, body)
                }
            )
        }
        for _ in 0..<5 { try await start(0) }
        for session in [1, 2, 1, 2, 1, 2] { try await start(session) }
        let view = try await helper.createSession(fixture.request(), by: voices).session
        let bytes = try list(try devices(2, of: view))
        let path = "/v1/helper/sessions/\(view.session)/sum"
        #expect(try await send(router, path, other, MemoryBody(bytes)) == 200)
        // Two lists of the first session are on their way, and two of the others.
        try await wait(for: "the refusals") { answered.count == 7 }
        for body in bodies { body.release() }
        var statuses: [Int] = []
        for answer in answers { statuses.append(try await answer.value) }
        #expect(
            statuses.prefix(5).filter { $0 == 200 }.count == 2 && statuses.prefix(5).filter { $0 == 503 }.count == 3
        )
        #expect(statuses.dropFirst(5).filter { $0 == 200 }.count == 2)
        // The room is free again, and a list that was summed takes none.
        #expect(try await send(router, paths[0], own, MemoryBody(lists[0])) == 200)
        #expect(try await send(router, paths[0], own, MemoryBody(lists[1])) == 409)
    }

    /// A list whose last seed is wrong costs the helper a round of opening: a session has so many of them.
    @Test func refusedListsOfASessionAreCounted() async throws {
        let fixture = try await HelperFixture { $0.refusedListLimit = 3 }
        let view = try await fixture.grant(fixture.request())
        let members = try devices(3, of: view)
        var wrong = members[2].entry
        wrong.sealed.bytes[1167] ^= 1
        let bad = try SeedList(members.prefix(2).map(\.entry) + [wrong]).bytes
        for _ in 1...3 {
            #expect(
                await code { _ = try await fixture.helper.makeSum(view.session, of: server, list: bad) }
                    == "seeds_unopened"
            )
        }
        #expect(
            await code { _ = try await fixture.helper.makeSum(view.session, of: server, list: bad) } == "policy_refused"
        )
        try await fixture.helper.cancelSession(view.session, of: server)
    }

    /// A server's names of runs are its own: nobody closes another's round, nor uses up its participations.
    @Test func aServerClosesNoRoundOfAnother() async throws {
        let fixture = try await HelperFixture(epsilon: 100)
        let other = ServerCaller(domain: "keyboards", server: "srv_2")
        var last = fixture.request(attempt: Int(UInt32.max), noiseMultiplier: 1)
        last.maxParticipations = 1
        let taken = try await fixture.helper.createSession(last, by: other).session
        var request = fixture.request(noiseMultiplier: 1)
        request.maxParticipations = 1
        let own = try await fixture.grant(request)
        _ = try await fixture.helper.makeSum(taken.session, of: other, list: try list(try devices(3, of: taken)))
        _ = try await fixture.helper.makeSum(own.session, of: server, list: try list(try devices(3, of: own)))
        let audit = try await fixture.helper.ledgerAudit("keyboards")
        #expect(Set(audit.rows.compactMap(\.runId)).isSuperset(of: ["srv_1/run_1", "srv_2/run_1"]))
        #expect(try LedgerAudit(try WireCoding.encode(audit), delta: nil, heads: []).problems.isEmpty)
        try await fixture.restart()
    }

    // MARK: - The clock

    /// A clock that was a year ahead, or is set back, keeps no key: the helper cannot tell how old it is.
    @Test(arguments: [false, true])
    func aClockThatIsSetBackEndsWhatIsOpen(whileStopped: Bool) async throws {
        let fixture = try await HelperFixture(epsilon: 100)
        fixture.clock.advance(by: 365 * 86_400)
        let view = try await fixture.grant(fixture.request(noiseMultiplier: 1))
        // A few minutes are nothing.
        fixture.clock.advance(by: -600)
        try await fixture.helper.tick()
        #expect(try fixture.names("keys").count == 1)
        fixture.clock.advance(by: -365 * 86_400)
        if whileStopped { try await fixture.restart() } else { try await fixture.helper.tick() }
        #expect(try fixture.names("keys").isEmpty)
        #expect(try await fixture.helper.sessionView(view.session, of: server).state == .expired)
        // From now on the corrected time counts.
        _ = try await fixture.grant(fixture.request(round: 2, noiseMultiplier: 1))
        try await fixture.helper.tick()
        try await fixture.restart()
        #expect(try fixture.names("keys").count == 1)
    }

    /// A clock that stands still does not make a key older than its session may be.
    @Test func aSessionEndsByTheUptimeToo() async throws {
        let shared = Uptime()
        let fixture = try await HelperFixture(epsilon: 100) { $0.uptime = { shared.seconds } }
        var request = fixture.request(noiseMultiplier: 1)
        request.expiresInS = 100
        _ = try await fixture.grant(request)
        shared.advance(by: 99)
        try await fixture.helper.tick()
        #expect(try fixture.names("keys").count == 1)
        try await fixture.restart()
        shared.advance(by: 101)
        try await fixture.helper.tick()
        #expect(try fixture.names("keys").isEmpty)
    }

    private final class Uptime: Sendable {
        private let value = Mutex(1000.0)
        var seconds: Double { value.withLock { $0 } }
        func advance(by seconds: Double) { value.withLock { $0 += seconds } }
    }
}
