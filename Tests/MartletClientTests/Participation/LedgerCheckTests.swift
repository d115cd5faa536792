import DifferentialPrivacy
import Foundation
import MartletClient
import StrictJSON
import Synchronization
import TestSupport
import Testing
import WireFormat

/// A look at the server's ledger ends, whatever the server does, and accuses nobody of what somebody else has answered.
@Suite(.timeLimit(.minutes(10)))
struct LedgerCheckTests {
    /// Shows a ledger as a test wants it, and notes what it is asked for.
    private final class Ledger: Transport {
        let requests = Mutex<[TransportRequest]>([])
        let answer: @Sendable (TransportRequest) async throws -> TransportResponse

        init(_ answer: @escaping @Sendable (TransportRequest) async throws -> TransportResponse) {
            self.answer = answer
        }

        func send(_ request: TransportRequest) async throws -> TransportResponse {
            requests.withLock { $0.append(request) }
            return try await answer(request)
        }

        static func links(_ count: Int, type: String = "application/octet-stream") -> TransportResponse {
            TransportResponse(status: 200, headers: ["content-type": type], body: Data(count: 32 * count))
        }
    }

    private let device: RehearsalDevice
    init() throws { device = try RehearsalDevice() }

    private func client(_ transport: any Transport) throws -> FederatedClient {
        FederatedClient(
            server: "http://server",
            enrollmentToken: "enroll",
            state: try ClientState(directory: device.path),
            trainer: RehearsalTrainer(),
            transport: transport,
            models: try ModelCache(directory: device.path + "/models"),
            retry: RetryPolicy(attemptLimit: 2, sleep: { _ in }, uniform: { 0.5 })
        )
    }

    /// A head of a ledger whose links are all zeros.
    private func head(_ number: Int, population: String = "pop_1") -> PopulationLedgerHead {
        var hash = LedgerChain.empty
        for place in 0..<number {
            hash = LedgerChain.head(after: hash, number: place + 1, link: String(repeating: "0", count: 64))
        }
        return PopulationLedgerHead(population: population, number: number, hash: hash)
    }

    private func forged(_ number: Int, population: String = "pop_1") -> PopulationLedgerHead {
        PopulationLedgerHead(population: population, number: number, hash: String(repeating: "f", count: 64))
    }

    private var kept: PopulationLedgerHead? {
        FileManager.default.contents(atPath: device.path + "/ledger-head.json")
            .flatMap { try? JSONDecoder().decode(PopulationLedgerHead.self, from: $0) }
    }

    /// A server that shows one link at a time made the client ask a million times.
    @Test(arguments: [0, 1, 4095])
    func aPageThatIsNotFullIsTheLastOne(_ count: Int) async throws {
        let server = Ledger {
            $0.url.contains("/links") ? Ledger.links(count) : RehearsalServer.refusal(404, "not_found")
        }
        let client = try client(server)
        #expect(try await ServerLedgerCheck(client.device).refusal(head(1), isPrivate: true) == nil)
        #expect(
            try await ServerLedgerCheck(client.device).refusal(forged(900_000), isPrivate: true)?.contains(
                "ledger_forked"
            ) == true
        )
        let asked = server.requests.withLock { $0 }
        #expect(asked.count { $0.url.contains("/links") } == 1 && asked.count == 2)
        #expect(asked.first?.byteLimit == 4096 * 32 && kept == head(1))
    }

    @Test func fullPagesAreRecomputed() async throws {
        let server = Ledger { _ in Ledger.links(4096) }
        let client = try client(server)
        #expect(try await ServerLedgerCheck(client.device).refusal(head(3), isPrivate: true) == nil)
        #expect(try await ServerLedgerCheck(client.device).refusal(head(5000), isPrivate: true) == nil)
        #expect(server.requests.withLock { $0.count } == 2 && kept == head(5000))
    }

    /// A ledger that has grown by more rows than one look recomputes was called forked, for ever.
    @Test func aLedgerThatHasGrownMuchIsNotKnownYetAndThenHolds() async throws {
        let server = Ledger { request in
            let from = Int(request.url.split(separator: "=").last ?? "") ?? 0
            return Ledger.links(min(4096, max(0, 9000 - from)))
        }
        let client = try client(server)
        #expect(try await ServerLedgerCheck(client.device).refusal(head(3), isPrivate: true) == nil)
        try await ServerLedgerCheck.$rowLimit.withValue(4000) { () async throws in
            for reached in [4003, 8003] {
                let error = await #expect(throws: ClientError.self) {
                    try await ServerLedgerCheck(client.device).refusal(head(9000), isPrivate: true)
                }
                #expect(error?.isTemporary == true && kept == head(reached), "\(String(describing: kept))")
            }
            #expect(
                try await ServerLedgerCheck(client.device).refusal(head(9000), isPrivate: true) == nil
                    && kept == head(9000)
            )
            // Another ledger is one at any distance: at the latest where the looks reach its head.
            await #expect(throws: ClientError.self) {
                try await ServerLedgerCheck(client.device).refusal(forged(13_500), isPrivate: true)
            }
        }
    }

    /// The row of an acknowledgement, and the hash before it, lead to the new head: no look recomputes a ledger from its beginning.
    @Test func anAcknowledgementIsProvenFromTheHashBeforeIt() async throws {
        let lost = PopulationLedgerHead(population: "pop_1", number: 6000, hash: String(repeating: "a", count: 64))
        let event =
            #"{"kind":"acknowledgement","lost":[{"after":5000,"hash":"\#(lost.hash)","number":6000}],"reason":"a disk"}"#
        let row = LedgerAcknowledgement(
            number: 5001,
            round: 1,
            attempt: 0,
            state: "committed",
            event: event,
            createdAtMs: 7,
            previousHash: head(5000).hash
        )
        let link = LedgerChain.link(
            population: "pop_1",
            number: 5001,
            run: "",
            round: 1,
            attempt: 0,
            state: "committed",
            event: event,
            milliseconds: 7
        )
        let rows = (1...5100).map { $0 == 5001 ? link : String(repeating: "0", count: 64) }
        var hash = LedgerChain.empty
        for (place, link) in rows.enumerated() { hash = LedgerChain.head(after: hash, number: place + 1, link: link) }
        let restored = PopulationLedgerHead(population: "pop_1", number: 5100, hash: hash)
        func server(_ row: LedgerAcknowledgement) -> Ledger {
            Ledger { request in
                if request.url.contains("/acknowledgements") {
                    return TransportResponse(
                        status: 200,
                        headers: ["content-type": "application/json"],
                        body: try WireCoding.encode(LedgerAcknowledgements(items: [row]))
                    )
                }
                let from = Int(request.url.split(separator: "=").last ?? "") ?? 0
                let page = rows.dropFirst(from).prefix(4096).flatMap { LedgerChain.bytes($0) ?? [] }
                return TransportResponse(
                    status: 200,
                    headers: ["content-type": "application/octet-stream"],
                    body: Data(page)
                )
            }
        }
        try await ServerLedgerCheck.$rowLimit.withValue(1000) { () async throws in
            // A hash that is not the one before the row leads elsewhere.
            var forged = row
            forged.previousHash = head(4999).hash
            // One client of a directory at a time.
            do {
                let liar = try client(server(forged))
                #expect(try await ServerLedgerCheck(liar.device).refusal(lost, isPrivate: true) == nil)
                #expect(
                    try await ServerLedgerCheck(liar.device).refusal(restored, isPrivate: true)?.contains(
                        "ledger_forked"
                    ) == true
                )
            }
            #expect(kept == lost)
            let honest = try client(server(row))
            #expect(
                try await ServerLedgerCheck(honest.device).refusal(restored, isPrivate: true) == nil && kept == restored
            )
            #expect(await honest.takeLedgerNotice()?.contains("a disk") == true)
        }
    }

    /// A login page was called a forked ledger.
    @Test(arguments: [Interference.captivePortal, .forbidden, .badGateway, .unknownProblem, .redirect])
    func whatSomebodyElseAnswersAccusesNobody(_ fault: Interference) async throws {
        let answer = try #require(fault.answer())
        let client = try client(Ledger { _ in answer })
        #expect(try await ServerLedgerCheck(client.device).refusal(head(1), isPrivate: true) == nil)
        for number in [9, 0] {
            let error = await #expect(throws: ClientError.self) {
                try await ServerLedgerCheck(client.device).refusal(forged(number), isPrivate: true)
            }
            #expect(error?.isTemporary == true && error?.code == ClientError.foreignAnswer, "\(fault)")
        }
        #expect(kept == head(1))
        #expect(await client.ledgerNotice == nil)
    }

    @Test(.slow) func aServerThatNeverAnswersIsNotWaitedForLongerThanTheWork() async throws {
        let client = try client(
            Ledger { _ in
                try await RealTime.untilCancelled()
                return Ledger.links(0)
            }
        )
        #expect(try await ServerLedgerCheck(client.device).refusal(head(1), isPrivate: true) == nil)
        let error = await #expect(throws: ClientError.self) {
            try await ServerLedgerCheck(client.device).refusal(forged(9), isPrivate: true, seconds: 1)
        }
        #expect(error?.code == "network" && error?.isTemporary == true)
    }

    /// Fields of the wrong kind, and rows that are no acknowledgements, are no restoration.
    @Test(arguments: [
        #"{"items": [{"number": "2"}]}"#, #"{"items": {}}"#, "[]", "{", #"{"items": []}"#,
        #"{"items": [{"number": 2, "round": 0, "attempt": 0, "state": "s", "event": "{\"kind\": 7}", "created_at_ms": 1}]}"#,
    ])
    func acknowledgementsAreReadStrictly(_ text: String) async throws {
        let client = try client(
            Ledger { request in
                request.url.contains("/links")
                    ? Ledger.links(0)
                    : TransportResponse(
                        status: 200,
                        headers: ["content-type": "application/json"],
                        body: Data(text.utf8)
                    )
            }
        )
        #expect(try await ServerLedgerCheck(client.device).refusal(head(4), isPrivate: true) == nil)
        #expect(
            try await ServerLedgerCheck(client.device).refusal(forged(2), isPrivate: true)?.contains("ledger_forked")
                == true
        )
    }

    @Test func theStrictReaderTakesWhatTheServerWrites() throws {
        let row = LedgerAcknowledgement(
            number: 2,
            round: 1,
            attempt: 0,
            state: "committed",
            event:
                #"{"kind": "acknowledgement", "lost": [{"after": 1, "hash": "\#(String(repeating: "a", count: 64))", "number": 3}], "reason": "r"}"#,
            createdAtMs: 1_700_000_000_000
        )
        let answer = LedgerAcknowledgements(items: [row])
        let read = try LedgerAcknowledgements.read(.parse(Array(WireCoding.encode(answer))))
        #expect(read == answer)
        let note = try #require(read.items.first?.note)
        #expect(note.reason == "r" && note.lost.map(\.number) == [3] && note.lost.first?.after == 1)
    }

    /// Whoever registers anew in another population was told for ever that its ledger was forked.
    @Test func eachPopulationHasItsHead() async throws {
        let server = Ledger { _ in RehearsalServer.refusal(404, "not_found") }
        func refusal(_ head: PopulationLedgerHead) async throws -> String? {
            try await ServerLedgerCheck(client(server).device).refusal(head, isPrivate: true)
        }
        #expect(try await refusal(head(2)) == nil)
        // A server cannot change the population of a client that is registered.
        #expect(try await refusal(head(2, population: "pop_2"))?.contains("another population") == true)
        try ClientState(directory: device.path).forgetRegistration()
        #expect(try await refusal(head(3, population: "pop_2")) == nil && kept?.population == "pop_2")
        #expect(try await refusal(head(2))?.contains("another population") == true)
        // The first population's head was not forgotten.
        try ClientState(directory: device.path).forgetRegistration()
        #expect(try await refusal(forged(2))?.contains("ledger_forked") == true)
        #expect(try await refusal(head(2)) == nil && kept == head(2))
        try ClientState(directory: device.path).forgetRegistration()
        #expect(try await refusal(forged(3, population: "pop_2"))?.contains("ledger_forked") == true)
    }

    /// Puts heads into a server's answers, and looks at the device when it is asked for links.
    private final class Headed: Transport {
        let server = RehearsalServer()
        let path: String
        let wasPending = Mutex<[Bool]>([])
        let heads: [PopulationLedgerHead]

        init(_ path: String, _ heads: [PopulationLedgerHead]) { (self.path, self.heads) = (path, heads) }

        func send(_ request: TransportRequest) async throws -> TransportResponse {
            guard !request.url.contains("/ledger/") else {
                let isPending = FileManager.default.fileExists(atPath: path + "/pending.json")
                wasPending.withLock { $0.append(isPending) }
                throw ClientError(code: "network", message: "no answer")
            }
            var answer = try await server.send(request)
            let isWork = request.url.hasSuffix("/checkins")
            guard isWork || request.url.hasSuffix("/update"), !answer.body.isEmpty,
                case .object(var fields) = try JSONValue.parse(Array(answer.body))
            else { return answer }
            let head = try JSONValue.parse(Array(WireCoding.encode(isWork ? heads[0] : heads[1])))
            if isWork, case .object(var work)? = fields["assignment"] {
                work["ledger_head"] = head
                fields["assignment"] = .object(work)
            } else {
                fields["ledger_head"] = head
            }
            answer.body = try WireCoding.encode(JSONValue.object(fields))
            return answer
        }
    }

    /// An update that was accepted stayed unsettled while its receipt's head was looked at.
    @Test func anAcceptedUpdateIsSettledBeforeItsHeadIsLookedAt() async throws {
        let server = Headed(device.path, [head(1), head(2)])
        #expect(try await client(server).participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 1))
        let wasPending = server.wasPending.withLock { $0 }
        #expect(!wasPending.isEmpty && wasPending.allSatisfy { !$0 }, "\(wasPending)")
        #expect(kept == head(1))
    }
}
