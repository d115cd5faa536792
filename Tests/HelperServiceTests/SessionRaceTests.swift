import Coordination
import Foundation
import HelperService
import Synchronization
import TestSupport
import Testing
import WireFormat

/// Every two requests about one session at the same time: each is answered, and the session has one end.
@Suite(.timeLimit(.minutes(10)))
struct SessionRaceTests {
    private enum Request: String, CaseIterable {
        case grant, look, cancel, sum, otherSum, fetch, delete, expected, repeated, tick, status, ledger, readiness
    }

    private struct Case: Sendable {
        var helper: Helper
        var request: HelperSessionRequest
        var id: String
        var list: [UInt8]
        var other: [UInt8]

        /// The code with which a request is refused.
        func code(of request: Request) async -> String? {
            do {
                try await perform(request)
                return nil
            } catch { return (error as? CoordinationError)?.code ?? "\(error)" }
        }

        func perform(_ request: Request) async throws {
            let server = HelperFixture.server
            switch request {
            case .grant: _ = try await helper.createSession(self.request, by: server)
            case .look: _ = try await helper.sessionView(id, of: server)
            case .cancel: try await helper.cancelSession(id, of: server)
            case .sum: _ = try await helper.makeSum(id, of: server, list: list)
            case .otherSum: _ = try await helper.makeSum(id, of: server, list: other)
            case .fetch: _ = try await helper.sumFile(id, of: server)
            case .delete: try await helper.deleteSum(id, of: server)
            case .expected: _ = try await helper.expectedList(id, of: server)
            case .repeated: _ = try await helper.repeatedSum(id, of: server, digest: Secrets.sha256(list))
            case .tick: try await helper.tick()
            case .status: _ = try await helper.status()
            case .ledger: _ = try await helper.ledgerAudit(server.domain)
            case .readiness: _ = try await helper.checkStorage()
            }
        }
    }

    private final class Answers: Sendable {
        private let codes = Mutex<[String?]>([])
        var all: [String?] { codes.withLock { $0 } }
        func add(_ code: String?) { codes.withLock { $0.append(code) } }
    }

    /// What a request may be refused with; nothing else is an answer.
    private static let refusals: Set<String> = [
        "session_spent", "session_expired", "attempt_conflict", "not_found", "population_without_budget",
    ]

    /// Runs requests together and waits for them; a helper that hangs is noticed and left.
    private func finish(_ what: String, _ one: Case, _ requests: [Request]) async throws {
        let answers = Answers()
        for request in requests {
            Task { @Sendable in answers.add(await one.code(of: request)) }
            // The second comes while the first has begun.
            await Task.yield()
        }
        try await wait(for: "the answers to \(what)", seconds: 60) {
            answers.all.count == requests.count
        }
        for case let found? in answers.all {
            #expect(Self.refusals.contains(found), "\(what): \(found)")
        }
    }

    @Test func everyTwoRequestsAboutASessionAreAnswered() async throws {
        let fixture = try await HelperFixture(
            policy: HelperPolicy(minimum: 2, maximum: 100, openSessions: 1000)
        )
        var round = 0
        for first in Request.allCases {
            for second in Request.allCases {
                // Both alone, and both while a sum is made.
                for requests in [[first, second], [.sum, first, second]] {
                    round += 1
                    let request = fixture.request(run: "run_\(round)")
                    let view = try await fixture.grant(request)
                    let members = try devices(3, of: view)
                    let one = Case(
                        helper: fixture.helper,
                        request: request,
                        id: view.session,
                        list: try list(members),
                        other: try list(Array(members.prefix(2)))
                    )
                    try await finish("\(requests.map(\.rawValue)) in round \(round)", one, requests)
                    try await finish("a look at round \(round)", one, [.look])
                }
            }
        }
        #expect(try fixture.filesAreThoseOfTheDatabase())
    }

    /// A task that has ended gives its value without a pause: two that wait for it in a loop can wait for ever.
    @Test func oneFunctionAloneWaitsForASum() throws {
        let sources = URL(fileURLWithPath: #filePath).deletingLastPathComponent().path + "/../../Sources/HelperService"
        var waits: [String] = []
        for name in try FileManager.default.subpathsOfDirectory(atPath: sources) where name.hasSuffix(".swift") {
            let text = try String(contentsOfFile: sources + "/" + name, encoding: .utf8)
            for line in text.split(separator: "\n") where line.contains("sums[") && line.contains("let ") {
                waits.append("\(name): \(line.trimmingCharacters(in: .whitespaces))")
            }
        }
        #expect(waits == ["Sessions/Helper+Sums.swift: while let running = sums[id] {"])
    }

    /// Two sums of one run at the same time count each other's participants.
    @Test func theCapOfParticipationsHoldsForSumsThatAreMadeTogether() async throws {
        let fixture = try await HelperFixture(
            policy: HelperPolicy(minimum: 2, maximum: 100, openSessions: 100)
        )
        var sessions: [(id: String, list: [UInt8])] = []
        for round in 1...6 {
            var request = fixture.request(round: round, coordinates: 20_000)
            request.maxParticipations = 2
            let view = try await fixture.grant(request)
            sessions.append((view.session, try list(try devices(3, of: view))))
        }
        let helper = fixture.helper
        let codes = await withTaskGroup(of: String?.self) { group in
            for session in sessions {
                group.addTask {
                    await code {
                        _ = try await helper.makeSum(session.id, of: HelperFixture.server, list: session.list)
                    }
                }
            }
            return await group.reduce(into: [String?]()) { $0.append($1) }
        }
        #expect(codes.filter { $0 == nil }.count == 2 && codes.filter { $0 == "participation_cap" }.count == 4)
        #expect(try fixture.filesAreThoseOfTheDatabase())
    }
}
