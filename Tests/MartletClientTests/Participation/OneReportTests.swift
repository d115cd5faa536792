import Foundation
import LocalTraining
import MartletClient
import Synchronization
import Tensors
import TestSupport
import Testing
import WireFormat

/// One training, one noising, one report for one assignment, whatever stands between the device and its server, and whenever the
/// device dies.
@Suite(.timeLimit(.minutes(10)))
struct OneReportTests {
    /// A seeded choice for each request: the same script every time.
    private static func script(seed: UInt64, share: Double) -> @Sendable (Int, String) -> Interference? {
        { number, _ in
            var generator = Xoshiro256StarStar(seed: seed &+ UInt64(number) &* 0x9E37_79B9)
            guard Double.random(in: 0..<1, using: &generator) < share else { return nil }
            return Interference.allCases.randomElement(using: &generator)
        }
    }

    /// What must hold at any time: each assignment one event at most, one version of its bytes, and an event for all that left.
    private func check(_ server: RehearsalServer, _ device: RehearsalDevice, _ context: String) throws {
        let ledger = try device.ledger()
        #expect(ledger.count == Set(ledger).count, "\(context): an event was recorded twice")
        let (sent, accepted) = server.state.withLock { ($0.sent, $0.accepted) }
        for (assignment, bytes) in sent {
            #expect(bytes.count == 1, "\(context): \(assignment) left the device in \(bytes.count) versions")
            #expect(ledger.contains(assignment), "\(context): \(assignment) left the device without an event")
        }
        #expect(Set(accepted.keys).isSubset(of: sent.keys), "\(context)")
    }

    @Test(.slow, arguments: 1...12)
    func whateverAnswersInTheServersPlaceEachAssignmentIsTrainedOnce(_ seed: Int) async throws {
        let server = RehearsalServer(interference: Self.script(seed: UInt64(seed), share: 0.45))
        let (device, trainer) = (try RehearsalDevice(), RehearsalTrainer())
        let client = try device.client(server, trainer)
        let work = Task {
            try await client.run { outcome, _ in
                if case .accepted = outcome, server.state.withLock({ $0.accepted.count }) >= 15 {
                    withUnsafeCurrentTask { $0?.cancel() }
                }
            }
        }
        try await work.value
        try check(server, device, "seed \(seed)")
        let (accepted, failed) = server.state.withLock { ($0.accepted.count, $0.failed) }
        #expect(accepted >= 15 && failed.isEmpty, "\(failed)")
        let counts = trainer.counts.withLock { $0 }
        #expect(counts.values.allSatisfy { $0 == 1 } && counts.count >= 15, "\(counts)")
        #expect(try device.ledger().count == counts.count)
    }

    /// The device dies at each point in turn, and the next process goes on from what is on its disk.
    @Test(.slow) func aDeathAtAnyPointSendsTheSameBytesOrNone() async throws {
        var point = 1
        while true {
            let (device, server, trainer) = (try RehearsalDevice(), RehearsalServer(), RehearsalTrainer())
            let reached = Counter()
            let target = point
            do {
                let client = try device.client(server, trainer) {
                    let count = reached.increase()
                    if count >= target {
                        // Nothing that comes later has any effect, on the disk or at the server.
                        server.state.withLock { $0.isDead = true }
                        throw RehearsalServer.Killed()
                    }
                }
                for _ in 0..<2 { _ = try await client.participateOnce(waitSeconds: 0) }
            } catch is RehearsalServer.Killed {
            } catch is CancellationError {
            }
            server.state.withLock { $0.isDead = false }
            let last = reached.value
            let next = try device.client(server, trainer)
            for _ in 0..<3 { _ = try await next.participateOnce(waitSeconds: 0) }
            try check(server, device, "point \(point)")
            let (accepted, failed) = server.state.withLock { ($0.accepted.count, $0.failed.count) }
            #expect(accepted >= 3 && failed == 0, "point \(point): \(accepted) accepted, \(failed) failed")
            #expect(!(try device.files()).contains { $0.hasSuffix(".tmp") || $0.contains("damaged") }, "point \(point)")
            if last < target { break }
            point += 1
        }
        // Two participations with registration: the sweep has seen them all.
        #expect(point > 40, "\(point)")
    }

    @Test(.slow, arguments: 1...6)
    func deathsAndInterferenceTogetherKeepThePromise(_ seed: Int) async throws {
        let script = Self.script(seed: UInt64(seed) &* 77, share: 0.3)
        let server = RehearsalServer(interference: script)
        let (device, trainer) = (try RehearsalDevice(), RehearsalTrainer())
        var generator = Xoshiro256StarStar(seed: UInt64(seed))
        for _ in 0..<25 {
            let (reached, target) = (Counter(), Int.random(in: 1...40, using: &generator))
            do {
                let client = try device.client(server, trainer) {
                    guard reached.increase() >= target else { return }
                    server.state.withLock { $0.isDead = true }
                    throw RehearsalServer.Killed()
                }
                for _ in 0..<3 { _ = try await client.participateOnce(waitSeconds: 0) }
            } catch is RehearsalServer.Killed {
            } catch is CancellationError {
            } catch is ClientError {
            }
            server.state.withLock { $0.isDead = false }
            if FileManager.default.fileExists(atPath: device.path + "/ledger.json") {
                try check(server, device, "seed \(seed)")
            }
        }
        #expect(server.state.withLock { $0.accepted.count } > 5)
    }

    // MARK: - What is final

    @Test func aSizeThatTheServerRefusesIsReportedAndNotTriedForEver() async throws {
        let server = RehearsalServer()
        server.state.withLock { $0.refusesSize = true }
        let (device, trainer) = (try RehearsalDevice(), RehearsalTrainer())
        let client = try device.client(server, trainer)
        for _ in 0..<12 {
            #expect(try await client.participateOnce(waitSeconds: 0) == .ended(code: "too_large"))
        }
        #expect(await client.lastReason?.contains("too_large") == true)
        let failed = server.state.withLock { $0.failed }
        #expect(failed.count == 12 && Set(failed.values) == ["training_failed"])
        // The place was free each time, and each time the device waited longer before it asked for more.
        let waits = device.waits.withLock { $0 }
        #expect(waits.count == 11 && waits == waits.sorted() && waits.last == 300 * 0.75, "\(waits)")
    }

    @Test func bytesThatNobodyAcknowledgedAreKeptUntilAnHourAfterTheDeadline() async throws {
        let server = RehearsalServer { _, key in key == "PUT update" ? .forbidden : nil }
        let (device, trainer) = (try RehearsalDevice(), RehearsalTrainer())
        let client = try device.client(server, trainer, attemptLimit: 2)
        var tries = 0
        while true {
            do {
                let outcome = try await client.participateOnce(waitSeconds: 0)
                #expect(outcome == .ended(code: "deadline_passed"))
                break
            } catch let error as ClientError {
                #expect(error.code == ClientError.foreignAnswer && error.isTemporary)
                tries += 1
                device.seconds.withLock { $0 += 300 }
            }
        }
        // A deadline in 60 s and an hour, in steps of five minutes.
        #expect((11...13).contains(tries), "\(tries)")
        #expect(trainer.counts.withLock { $0 } == [1: 1])
        let endings = try String(contentsOfFile: device.path + "/endings.jsonl", encoding: .utf8)
        #expect(endings.contains("deadline_passed") && endings.contains("firewall"), "\(endings)")
        try check(server, device, "refused")
    }

    @Test func theOwnerIsToldOnceWhatStandsInBetweenAndOnceThatItIsGone() async throws {
        let server = RehearsalServer { number, key in key == "PUT update" && number < 12 ? .redirect : nil }
        let (device, trainer) = (try RehearsalDevice(), RehearsalTrainer())
        let client = try device.client(server, trainer, attemptLimit: 20)
        #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 1))
        let notices = device.notices.withLock { $0 }
        #expect(notices.map(\.kind) == [.outageBegan, .outageEnded], "\(notices)")
        let text = try #require(notices.first?.message)
        // Where it points, without what it carries.
        #expect(text.contains("redirect (302) to https://portal.example/login,") && !text.contains("secret"), "\(text)")
    }

    @Test func aProxyThatWaitsLessLongThanTheServerMeansNoWork() async throws {
        let server = RehearsalServer { _, key in key == "POST checkins" ? .gatewayTimeout : nil }
        let (device, trainer) = (try RehearsalDevice(), RehearsalTrainer())
        let client = try device.client(server, trainer)
        for _ in 0..<4 {
            guard case .noWork(.gatewayTimeout, _) = try await client.participateOnce(waitSeconds: 30) else {
                Issue.record("a 504 to a long poll is no work")
                return
            }
        }
        #expect(device.notices.withLock { $0.count } == 1)
    }

    // MARK: - The loop

    @Test func aServerThatIsAwayForHoursIsWaitedOut() async throws {
        let server = RehearsalServer { number, _ in number < 150 ? .unreachable : nil }
        let (device, trainer) = (try RehearsalDevice(), RehearsalTrainer())
        let client = try device.client(server, trainer, attemptLimit: 8)
        try await Task {
            try await client.run { outcome, _ in
                if case .accepted = outcome { withUnsafeCurrentTask { $0?.cancel() } }
            }
        }.value
        #expect(server.state.withLock { $0.accepted.count } == 1)
        let waits = device.waits.withLock { $0 }
        #expect(waits.reduce(0, +) > 3600 && waits.allSatisfy { $0 <= 300 })
        #expect(device.notices.withLock { $0.map(\.kind) } == [.outageBegan, .outageEnded])
    }

    @Test func whoWantsAnEndGetsOne() async throws {
        let away = RehearsalServer { _, _ in .unreachable }
        let device = try RehearsalDevice()
        let client = try device.client(away, RehearsalTrainer(), attemptLimit: 8)
        let error = await #expect(throws: ClientError.self) {
            try await client.run(.init(giveUpAfterSeconds: 120))
        }
        #expect(error?.code == "network")
        let waited = device.waits.withLock { $0.reduce(0, +) }
        #expect(waited <= 121 && waited > 30, "\(waited)")
    }

    @Test func refusalsForGoodEndTheLoop() async throws {
        let server = ScriptedRefusal(status: 401, code: "unauthorized")
        let device = try RehearsalDevice()
        let client = FederatedClient(
            server: "http://server",
            enrollmentToken: "enroll",
            state: try ClientState(directory: device.path),
            trainer: RehearsalTrainer(),
            transport: server,
            models: try ModelCache(directory: device.directory.path + "/models")
        )
        let error = await #expect(throws: ClientError.self) { try await client.run() }
        #expect(error?.code == "unauthorized" && error?.message.contains("martlet population token") == true)
    }

    private struct ScriptedRefusal: Transport {
        var status: Int
        var code: String
        func send(_ request: TransportRequest) async throws -> TransportResponse {
            RehearsalServer.refusal(status, code)
        }
    }

    // MARK: - Trainers and cancellation

    @Test func anyErrorOfATrainerIsReportedAndTheLoopGoesOn() async throws {
        struct Mine: Error {}
        // With privacy the answer would be zeros: see NonInterferenceTests.
        let server = RehearsalServer(mode: "none")
        let trainer = RehearsalTrainer { instructions in if instructions.seed < 3 { throw Mine() } }
        let device = try RehearsalDevice()
        let client = try device.client(server, trainer)
        let reasons = Mutex<[String]>([])
        try await Task {
            try await client.run { outcome, reason in
                if let reason { reasons.withLock { $0.append(reason) } }
                if case .accepted = outcome { withUnsafeCurrentTask { $0?.cancel() } }
            }
        }.value
        #expect(server.state.withLock { $0.failed } == ["asg_1": "training_failed", "asg_2": "training_failed"])
        #expect(reasons.withLock { $0 } == ["the trainer failed: Mine()", "the trainer failed: Mine()"])
        // What never was noised is not counted.
        #expect(try device.ledger() == ["asg_3"])
    }

    @Test(arguments: [true, false])
    func cancellingStopsTheTrainerAndLeavesTheWork(_ looks: Bool) async throws {
        let server = RehearsalServer()
        let (begun, sawIt, goOn, left) = (Counter(), Counter(), Counter(), Counter())
        let trainer = RehearsalTrainer { instructions in
            guard goOn.value == 0 else { return }
            begun.value = 1
            var patience = Patience("the cancellation")
            while instructions.cancellation?.isCancelled != true { try patience.pauseThread() }
            sawIt.value = 1
            if looks { throw LocalTrainingError.cancelled }
            // A trainer that does not look goes on, and what it brings is of no use.
            defer { left.value = 1 }
            while goOn.value == 0 { try patience.pauseThread() }
        }
        let device = try RehearsalDevice()
        do {
            let client = try device.client(server, trainer)
            let work = Task { try await client.run() }
            try await wait(for: "the training") { begun.value == 1 }
            work.cancel()
            try await work.value
            #expect(left.value == 0, "the end of the work waited for its trainer")
        }
        try await wait(for: "the trainer to see it") { sawIt.value == 1 }
        goOn.value = 1
        // Neither reported nor charged: the same assignment is done the next time.
        #expect(server.state.withLock { $0.failed.isEmpty && $0.live == "asg_1" })
        #expect(try device.ledger().isEmpty)
        let next = try device.client(server, trainer)
        #expect(try await next.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 1))
        try check(server, device, "cancelled")
    }
}
