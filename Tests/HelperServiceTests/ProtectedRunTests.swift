import Coordination
import DifferentialPrivacy
import Foundation
import HelperService
import SecureAggregation
import StrictJSON
import Synchronization
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// Training through a helper, from the run file to the model, with a server and a helper in this process.
@Suite(.timeLimit(.minutes(5)))
struct ProtectedRunTests {
    /// Without noise the model is the mean of the integers, to the bit.
    @Test(arguments: [16, 32, 64])
    func theModelIsTheMeanOfWhatTheDevicesMasked(bits: Int) async throws {
        let bench = try await ProtectedBench()
        try await bench.start { $0.protection += ["bits": bits] }
        var sums = [Int64](repeating: 0, count: 4)
        var step = 0.0
        for client in 0..<3 {
            let assignment = try await bench.assignment(client)
            let document = try SessionDocument(parsing: try #require(assignment.protection).document)
            step = document.step
            let masked = try bench.mask(
                ProtectedBench.values(client),
                for: assignment,
                pseudonym: ProtectedBench.pseudonym(client)
            )
            for index in sums.indices { sums[index] += masked.integers[index] }
            let answer = try await bench.send(masked.bytes, assignment, of: client)
            #expect(answer.status == 200, "\(answer.json)")
        }
        try await bench.tick(until: "the model") { $0.committedRounds == 1 }
        let expected = sums.map { Float(Double($0) * step / 3) }
        #expect(try await bench.model() == expected)
        let state = bench.party.state.withLock { $0 }
        #expect(state.lists.count == 1 && state.lists[0].count == 3 * SeedList.entryByteCount)
        try await bench.tick(until: "the helper to be told") { _ in
            bench.party.state.withLock { $0.deleted.count } == 1
        }
    }

    /// The sum has the helper's noise and the server's, and one charge at each.
    @Test func withPrivacyTheSumHasTheNoiseOfBoth() async throws {
        let bench = try await ProtectedBench(epsilon: 50)
        try await bench.start(budget: 50) {
            $0.privacy = ["mode": "central", "noise_multiplier": 1, "clipping": ["norm": 0.5]]
        }
        var masks: [MaskStream] = []
        var sums = [Int64](repeating: 0, count: 4)
        var step = 0.0
        for client in 0..<3 {
            step = try SessionDocument(parsing: try #require(try await bench.assignment(client).protection).document)
                .step
            let masked = try await bench.play(client)
            masks.append(try MaskStream(seed: masked.seed))
            for index in sums.indices { sums[index] += masked.integers[index] }
        }
        try await bench.tick(until: "the model") { $0.committedRounds == 1 }
        let sum = try #require(bench.party.state.withLock { $0.sums.values.first?.first })
        var words = [UInt64](repeating: 0, count: 4)
        for mask in masks { try words.withUnsafeMutableBufferPointer { try mask.add(to: $0) } }
        let noise = try sum.withUnsafeBytes { try Unmasking.finish(words, helper: $0) }
        var own = [Int64](repeating: 0, count: 4)
        try IntegerGaussianSampler(releaseKey: ProtectedBench.noiseKey.derived(for: .sum)).addNoise(to: &own)
        let expected = (0..<4).map { Float(Double(sums[$0] + noise[$0] + own[$0]) * step / 3) }
        #expect(try await bench.model() == expected)
        #expect(noise.contains { $0.magnitude > 100_000 })
        let round = try #require(try await bench.rounds().first)
        #expect(round.epsilon ?? 0 > 1)
        #expect(try await bench.helper.domain().budget != nil)
    }

    /// A seed that was sealed for another session is left out, and the sum is that of the others.
    @Test func updatesWhoseSeedsDoNotOpenAreLeftOut() async throws {
        let bench = try await ProtectedBench()
        try await bench.start()
        var sums = [Int64](repeating: 0, count: 4)
        for client in 0..<3 {
            let masked = try await bench.play(client, session: client == 1)
            if client != 1 { for index in sums.indices { sums[index] += masked.integers[index] } }
        }
        try await bench.tick(until: "the model") { $0.committedRounds == 1 }
        let document = try bench.party.state.withLock {
            try SessionDocument(parsing: Array(Data(base64Encoded: $0.sessions[0].document) ?? Data()))
        }
        #expect(try await bench.model() == sums.map { Float(Double($0) * document.step / 2) })
        #expect(bench.party.state.withLock { $0.lists.map { $0.count / SeedList.entryByteCount } } == [3, 2])
        #expect(try await bench.rounds().first?.excluded == 1)
    }

    /// With too few left the attempt ends, its session is cancelled, and a second attempt has another one.
    @Test func tooFewSeedsEndTheAttemptAndASecondOneHasItsOwnSession() async throws {
        let bench = try await ProtectedBench()
        try await bench.start(clients: 4)
        for client in 0..<3 { try await bench.play(client, session: client < 2) }
        try await bench.tick(until: "the end of the attempt") { _ in try await bench.rounds().last?.attempt == 2 }
        let first = try await bench.rounds().first
        #expect(first?.state == .abandoned && first?.reason?.contains("did not open") == true, "\(first?.reason ?? "")")
        let state = bench.party.state.withLock { $0 }
        #expect(state.cancelled.count == 1 && Set(state.sessions.map(\.session)).count == 2 && state.sums.isEmpty)
        for client in 0..<3 { try await bench.play(client) }
        try await bench.tick(until: "the model") { $0.committedRounds == 1 }
    }

    /// A helper that is away when the round should open, and again when it closes, costs time only.
    @Test func aHelperThatIsAwayIsWaitedFor() async throws {
        let bench = try await ProtectedBench()
        bench.party.state.withLock { $0.isAway = true }
        try await bench.start()
        try await bench.tick(until: "the server to say so") { $0.waitingFor.contains("the helper: nobody answers") }
        #expect(
            try await bench.coordinator.overview(role: .admin).problems.contains { $0.code == "helper_unavailable" }
        )
        bench.party.state.withLock { $0.isAway = false }
        for client in 0..<2 { try await bench.play(client) }
        bench.party.state.withLock { $0.isAway = true }
        let assignment = try await bench.assignment(2)
        let masked = try bench.mask(ProtectedBench.values(2), for: assignment, pseudonym: ProtectedBench.pseudonym(2))
        #expect(try await bench.send(masked.bytes, assignment, of: 2).status == 200)
        try await bench.tick(until: "the server to say so", step: 0) { $0.waitingFor.contains("nobody answers") }
        try await bench.restart()
        try await bench.restartHelper()
        bench.party.state.withLock { $0.isAway = false }
        try await bench.tick(until: "the model") { $0.committedRounds == 1 }
        #expect(bench.party.state.withLock { $0.sums.values.map(\.count) } == [1])
    }

    /// The answer is lost, server and helper are started again: the same list has the same bytes, and there is one charge.
    @Test func aLostSumIsAskedForAgain() async throws {
        let bench = try await ProtectedBench(epsilon: 50)
        bench.party.state.withLock { $0.losesSums = true }
        try await bench.start(budget: 50) {
            $0.privacy = ["mode": "central", "noise_multiplier": 1, "clipping": ["norm": 0.5]]
        }
        for client in 0..<3 { try await bench.play(client) }
        try await bench.tick(until: "the sum to be lost", step: 0) { $0.waitingFor.contains("the answer was cut") }
        try await bench.restart()
        try await bench.restartHelper()
        try await bench.tick(until: "the sum to be lost again", step: 0) {
            $0.waitingFor.contains("the answer was cut")
        }
        bench.party.state.withLock { $0.losesSums = false }
        try await bench.tick(until: "the model") { $0.committedRounds == 1 }
        let state = bench.party.state.withLock { $0 }
        #expect(state.sums.values.map(\.count) == [1] && Set(state.lists).count == 1 && state.lists.count >= 3)
        let rows = try bench.service.store.load().ledger
        #expect(rows.filter { $0.state == .committed && !$0.runId.isEmpty }.count == 1)
        #expect(rows.filter { $0.state == .reserved }.count == 1)
    }

    /// Garbage of a helper's is found after the server's noise, and the attempt ends.
    @Test func aSumThatBelongsToOtherUpdatesIsRefused() async throws {
        let bench = try await ProtectedBench(epsilon: 50)
        bench.party.state.withLock { $0.spoils = { for index in $0.indices { $0[index] = 0x7F } } }
        try await bench.start(budget: 50) {
            $0.privacy = ["mode": "central", "noise_multiplier": 1, "clipping": ["norm": 0.5]]
        }
        for client in 0..<3 { try await bench.play(client) }
        try await bench.tick(until: "the end of the attempt") { _ in
            try await bench.rounds().first?.state == .abandoned
        }
        #expect(try await bench.rounds().first?.reason?.contains("does not belong to these updates") == true)
        // What the helper has summed is charged, and stays so.
        let rows = try bench.service.store.load().ledger
        #expect(rows.filter { $0.state == .committed && !$0.runId.isEmpty }.count == 1)
        try await bench.tick(until: "the helper to be told") { _ in
            bench.party.state.withLock { $0.deleted.count } == 1
        }
    }

    @Test func aPseudonymIsOneClientsAndAClientHasOne() async throws {
        let bench = try await ProtectedBench()
        try await bench.start(clients: 4) { $0 += ["rounds": 2] }
        try await bench.play(0)
        let second = try await bench.assignment(1)
        let stolen = try bench.mask(ProtectedBench.values(1), for: second, pseudonym: ProtectedBench.pseudonym(0))
        let refused = try await bench.send(stolen.bytes, second, of: 1)
        #expect(refused.status == 409 && refused.code == "pseudonym_differs", "\(refused.json)")
        for client in 2..<4 { try await bench.play(client) }
        try await bench.tick(until: "the model") { $0.committedRounds == 1 }
        try await bench.restart()
        let again = try await bench.assignment(0)
        let other = try bench.mask(ProtectedBench.values(0), for: again, pseudonym: ProtectedBench.pseudonym(9))
        #expect(try await bench.send(other.bytes, again, of: 0).code == "pseudonym_differs")
    }

    /// Nothing but the length and the header is looked at, and any other length is refused before its bytes are taken.
    @Test func uploadsHaveOneLengthAndOneForm() async throws {
        let bench = try await ProtectedBench()
        try await bench.start(clients: 6)
        var changes: [(inout [UInt8]) -> Void] = []
        changes.append { $0.append(0) }
        changes.append { $0.removeLast() }
        changes.append { $0[1210] ^= 1 }
        for (client, (change, code)) in zip(changes, ["length_mismatch", "length_mismatch", "tensor_mismatch"])
            .enumerated()
        {
            let assignment = try await bench.assignment(client)
            var bytes = try bench.mask(
                ProtectedBench.values(client),
                for: assignment,
                pseudonym: ProtectedBench.pseudonym(client)
            ).bytes
            change(&bytes)
            #expect(try await bench.send(bytes, assignment, of: client).code == code)
        }
        // Any words at all are taken: a masked update looks like nothing.
        let assignment = try await bench.assignment(3)
        let masked = try bench.mask(ProtectedBench.values(3), for: assignment, pseudonym: ProtectedBench.pseudonym(3))
        #expect(try await bench.send(masked.bytes, assignment, of: 3).status == 200)
        #expect(try await bench.send(masked.bytes, assignment, of: 3).status == 200)
        var other = masked.bytes
        other[other.count - 1] ^= 1
        #expect(try await bench.send(other, assignment, of: 3).code == "update_differs")
    }

    /// A run that ends gives its session back, open or not.
    @Test func aCancelledRunCancelsItsSession() async throws {
        let bench = try await ProtectedBench()
        try await bench.start()
        try await bench.play(0)
        _ = try await bench.coordinator.cancelRun(bench.run)
        try await bench.tick(until: "the session to be cancelled") { _ in
            bench.party.state.withLock { $0.cancelled.count } == 1
        }
        let view = try await bench.helper.helper.sessionView(
            bench.party.state.withLock { $0.sessions[0].session },
            of: HelperFixture.server
        )
        #expect(view.state == .cancelled)
    }

    @Test func aServerWithoutAHelperRefusesTheRun() async throws {
        let service = try await Service()
        _ = try await service.post("/v1/populations", #"{"name": "p"}"#)
        let file = RunFile.sample { $0.protection = ["kind": "helper", "domain": "d"] }
        let answer = try await service.post("/v1/runs", file.text)
        #expect(answer.status == 422 && answer.code == "helper_missing")
    }
}
