import Foundation
import LocalTraining
import MartletClient
import Synchronization
import TestSupport
import Testing
import WireFormat

#if canImport(Glibc)
import Glibc
#endif

/// Mode `local`: noise is drawn once for each run and base version, in however many turns and attempts its report is sent.
@Suite(.timeLimit(.minutes(30)))
struct FurtherTurnTests {
    /// What must hold at any time: one version of the bytes of each round, and one event that pays for it.
    private func check(_ server: RehearsalServer, _ device: RehearsalDevice, _ context: String) throws {
        let (sent, rounds) = server.state.withLock { ($0.sent, $0.rounds) }
        var versions: [Int: Set<Data>] = [:]
        for (assignment, bytes) in sent { versions[rounds[assignment] ?? 0, default: []].formUnion(bytes) }
        for (round, bytes) in versions {
            #expect(bytes.count == 1, "\(context): round \(round) left the device in \(bytes.count) versions")
        }
        let events = try device.ledgerRounds()
        #expect(events.count == Set(events).count, "\(context): \(events) pay twice for one round")
        #expect(Set(versions.keys).isSubset(of: events), "\(context): a round left the device without an event")
    }

    @Test(arguments: ["lease_expired", "assignment_ended", "round_full"])
    func aFurtherTurnSendsTheSameBytesUnderTheSameEvent(_ code: String) async throws {
        let (device, server, trainer) = (try RehearsalDevice(), RehearsalServer(), RehearsalTrainer())
        server.state.withLock { $0.endings = [1: code, 2: code] }
        do {
            let client = try device.client(server, trainer)
            #expect(try await client.participateOnce(waitSeconds: 0) == .ended(code: code))
            #expect(try await client.participateOnce(waitSeconds: 0) == .ended(code: code))
        }
        // The next process knows of it too.
        let client = try device.client(server, trainer)
        #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 1))
        try check(server, device, code)
        #expect(try device.ledger() == ["asg_1"] && trainer.counts.withLock { $0 } == [1: 1])
        #expect(server.state.withLock { Set($0.sent.keys) } == ["asg_1", "asg_2", "asg_3"])
        // The next version has noise and an event of its own.
        #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 2))
        #expect(try device.ledger() == ["asg_1", "asg_4"])
        try check(server, device, code)
    }

    /// Other bytes would be a second release, and the same ones would be refused again.
    @Test(arguments: ["not_finite", "value_out_of_range", "too_large"])
    func afterARefusalForContentsThereIsNoReport(_ code: String) async throws {
        let (device, server, trainer) = (try RehearsalDevice(), RehearsalServer(), RehearsalTrainer())
        server.state.withLock { ($0.endings, $0.keepsRoundAfterFailure) = ([1: code], true) }
        let client = try device.client(server, trainer)
        #expect(try await client.participateOnce(waitSeconds: 0) == .ended(code: code))
        #expect(try await client.participateOnce(waitSeconds: 0) == .ended(code: "not_eligible"))
        #expect(await client.lastReason?.contains(code) == true)
        let (sent, failed) = server.state.withLock { ($0.sent, $0.failed) }
        #expect(Set(sent.keys) == ["asg_1"] && failed["asg_2"] == "not_eligible", "\(failed)")
        #expect(trainer.counts.withLock { $0 } == [1: 1])
        #expect(try device.ledger() == ["asg_1"])
        #expect(try device.files().filter { $0.hasPrefix("report-") } == ["report-run_1.json"])
    }

    /// An attempt that was thrown away is repeated with the reports that there are.
    @Test func anotherAttemptAtTheRoundGetsTheSameReport() async throws {
        let (device, server, trainer) = (try RehearsalDevice(), RehearsalServer(), RehearsalTrainer())
        let client = try device.client(server, trainer)
        _ = try await client.participateOnce(waitSeconds: 0)
        server.state.withLock { ($0.attempt, $0.repeatsRound) = (2, true) }
        #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 1))
        #expect(try device.ledger() == ["asg_1"])
        try check(server, device, "attempt 2")
    }

    /// Bytes that are gone are not made again in the attempt that may have got them; another attempt is paid for anew.
    @Test func aReportThatIsGoneIsNotDrawnAgainForTheSameAttempt() async throws {
        let (device, server, trainer) = (try RehearsalDevice(), RehearsalServer(), RehearsalTrainer())
        server.state.withLock { ($0.endings, $0.keepsRoundAfterFailure) = ([1: "lease_expired"], true) }
        let client = try device.client(server, trainer)
        _ = try await client.participateOnce(waitSeconds: 0)
        #expect(unlink(device.path + "/report-run_1.safetensors") == 0)
        #expect(try await client.participateOnce(waitSeconds: 0) == .ended(code: "not_eligible"))
        server.state.withLock { $0.attempt = 2 }
        #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 1))
        #expect(try device.ledger() == ["asg_1", "asg_3"])
    }

    /// A second report on the same version under other terms is not given, whatever is offered for it.
    @Test func otherTermsForTheSameVersionAreRefused() async throws {
        let (device, server, trainer) = (try RehearsalDevice(), RehearsalServer(), RehearsalTrainer())
        let client = try device.client(server, trainer)
        _ = try await client.participateOnce(waitSeconds: 0)
        server.state.withLock { ($0.noiseMultiplier, $0.repeatsRound) = (3, true) }
        #expect(try await client.participateOnce(waitSeconds: 0) == .ended(code: "not_eligible"))
        #expect(await client.lastReason?.contains("other terms") == true)
        #expect(try device.ledger() == ["asg_1"])
    }

    /// The device dies at each point in turn while its turns are lost or refused; the next process goes on from its disk.
    @Test(.slow, arguments: [[1: "lease_expired", 3: "round_full"], [1: "not_finite"]])
    func aDeathAtAnyPointOfItsTurnsLeavesOneVersionAndOneEvent(_ endings: [Int: String]) async throws {
        var point = 1
        while true {
            let (device, server, trainer) = (try RehearsalDevice(), RehearsalServer(), RehearsalTrainer())
            server.state.withLock { $0.endings = endings }
            let reached = Counter()
            let target = point
            do {
                let client = try device.client(server, trainer) {
                    guard reached.increase() >= target else { return }
                    server.state.withLock { $0.isDead = true }
                    throw RehearsalServer.Killed()
                }
                for _ in 0..<4 { _ = try await client.participateOnce(waitSeconds: 0) }
            } catch is RehearsalServer.Killed {
            } catch is CancellationError {
            }
            // While it was away the server has given its turn up.
            server.state.withLock { state in
                state.isDead = false
                if state.live != nil { (state.live, state.repeatsRound) = (nil, true) }
            }
            let last = reached.value
            let next = try device.client(server, trainer)
            for _ in 0..<5 { _ = try await next.participateOnce(waitSeconds: 0) }
            try check(server, device, "point \(point)")
            #expect(server.state.withLock { $0.accepted.count } >= 2, "point \(point)")
            if last < target { break }
            point += 1
        }
        #expect(point > 50, "\(point)")
    }

    /// A disk that is full from some point on costs no second event, however often the work begins again.
    @Test(.slow) func aFullDiskCostsOneEventOfARound() async throws {
        for point in stride(from: 1, through: 60, by: 2) {
            let (device, server, trainer) = (try RehearsalDevice(), RehearsalServer(), RehearsalTrainer())
            server.state.withLock { $0.keepsRoundAfterFailure = true }
            let (reached, isFull) = (Counter(), Counter(1))
            let client = try device.client(server, trainer) {
                guard reached.increase() >= point, isFull.value == 1 else { return }
                throw ClientError(code: "disk_full", message: "no space")
            }
            for _ in 0..<5 { _ = try? await client.participateOnce(waitSeconds: 0) }
            isFull.value = 0
            for _ in 0..<3 { _ = try await client.participateOnce(waitSeconds: 0) }
            try check(server, device, "point \(point)")
            #expect(server.state.withLock { $0.accepted.count } >= 2, "point \(point)")
        }
    }
}
