import Crypto
import DifferentialPrivacy
import Foundation
import LocalTraining
import SecureAggregation
import Synchronization
import Tensors
import TestSupport
import Testing
import WireFormat

@testable import MartletClient

/// What leaves a device that masks its update: one file of one length, under a seed that masks nothing else, and nothing beside it.
@Suite(.timeLimit(.minutes(10)))
struct MaskedUpdateTests {
    /// Gives another update each time, or fails as data do.
    private struct Trainer: LocalTrainer {
        var canRehearse: Bool { true }
        var values: @Sendable (TrainingInstructions) throws -> [Float]

        func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
            let values = try values(instructions)
            return TrainingResult(
                delta: ParameterVector(layout: model.layout, values: values),
                exampleCount: values.count * 3,
                stepCount: 4
            )
        }
    }

    /// The integers that the device's terms give for an update, clipped by the test itself.
    private func expected(_ values: [Float], mode: String, bits: Int) throws -> [Int64] {
        var terms = ProtectionGrid.Terms.plain(valueBound: 8, norm: nil)
        var values = values
        if mode == "central" {
            terms = .gaussian(clippingNorm: 0.5, noiseMultiplier: 2, scale: nil)
            _ = try L2Clipping.clip(&values, norm: 0.5)
        }
        let grid = try ProtectionGrid(
            terms,
            width: try #require(RingWidth(rawValue: UInt8(bits))),
            coordinateCount: 4,
            maximum: 1000
        )
        return try grid.encode(values)
    }

    @Test(arguments: [("central", 32), ("central", 64), ("none", 16), ("none", 32), ("none", 64)])
    func anUploadOpensToTheEncodedUpdate(_ mode: String, _ bits: Int) async throws {
        let updates: [[Float]] = [[1, 2, -3, 0.5], [0.01, 0, 0, -0.2], [0, 0, 0, 0], [100, -100, 7, 0]]
        var sizes: Set<Int> = []
        for values in updates {
            let rehearsal = MaskedRehearsal(mode: mode, bits: bits)
            let client = try RehearsalDevice().masked(rehearsal, Trainer { _ in values })
            #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 1))
            let opened = try rehearsal.opened()
            #expect(try opened.map(\.integers) == [expected(values, mode: mode, bits: bits)], "\(values)")
            sizes.formUnion(opened.map(\.byteCount))
            let upload = try #require(rehearsal.transcript.first { $0.request.hasPrefix("PUT ") })
            #expect(upload.fields.contains("Content-Type=\(MaskedUpdateFile.mediaType)"), "\(upload.fields)")
        }
        let width = try #require(RingWidth(rawValue: UInt8(bits)))
        #expect(sizes == [try MaskedUpdateFile(width: width, coordinateCount: 4).byteCount])
    }

    @Test func theLedgerCountsTheHelpersNoise() async throws {
        let rehearsal = MaskedRehearsal()
        let client = try RehearsalDevice().masked(rehearsal, RehearsalTrainer())
        _ = try await client.participateOnce(waitSeconds: 0)
        let session = try #require(rehearsal.session)
        let event = try #require(try client.device.state.ledger().events.first)
        let multiplier = session.document.noiseDeviation / Double(session.document.norm)
        #expect(event.noiseMultiplier == multiplier && event.domain == "keyboards")
        #expect(multiplier >= 2 && multiplier < 2 * (1 + 1e-6))
        // A round without noise costs nothing, and promises nothing.
        let plain = MaskedRehearsal(mode: "none")
        let other = try RehearsalDevice().masked(plain, RehearsalTrainer())
        _ = try await other.participateOnce(waitSeconds: 0)
        #expect(try other.device.state.ledger().events.first?.mode == .known(.none))
    }

    @Test func twoUploadsOfOneUpdateShareNothing() async throws {
        let rehearsal = MaskedRehearsal()
        let client = try RehearsalDevice().masked(rehearsal, RehearsalTrainer())
        for _ in 0..<8 { _ = try await client.participateOnce(waitSeconds: 0) }
        let opened = try rehearsal.opened()
        #expect(opened.count == 8 && Set(opened.map(\.integers)).count == 1)
        #expect(Set(opened.map(\.seed)).count == 8 && Set(opened.map(\.words)).count == 8)
        // One name at this helper and in this domain.
        #expect(Set(opened.map(\.pseudonym)).count == 1)
        // Of 64 bits no word comes twice, with a false-alarm chance of 32² / 2 / 2⁶⁴ < 1e-16.
        let words = opened.flatMap { entry in (0..<4).map { entry.words.dropFirst(8 * $0).prefix(8) } }
        #expect(Set(words.map { Data($0) }).count == 32)
    }

    @Test func anotherDeviceAndAnotherHelperHaveAnotherPseudonym() async throws {
        let (first, second) = (MaskedRehearsal(), MaskedRehearsal())
        // Another server hands out other assignments.
        second.server.state.withLock { $0.issued = 10 }
        let device = try RehearsalDevice()
        var names: [[UInt8]] = []
        for rehearsal in [first, second] {
            let client = try device.masked(rehearsal, RehearsalTrainer())
            _ = try await client.participateOnce(waitSeconds: 0)
            names += try rehearsal.opened().map(\.pseudonym)
        }
        let other = MaskedRehearsal()
        _ = try await RehearsalDevice().masked(other, RehearsalTrainer()).participateOnce(waitSeconds: 0)
        names += try other.opened().map(\.pseudonym)
        #expect(names.count == 3 && Set(names).count == 3 && names.allSatisfy { $0.count == 32 })
    }

    // MARK: - Seeds

    /// What must hold at any time: a seed masks one vector, and an assignment leaves the device in one version.
    private func check(_ rehearsal: MaskedRehearsal, _ context: String) throws {
        let opened = try rehearsal.opened()
        let seeds = Dictionary(grouping: opened, by: \.seed)
        #expect(seeds.values.allSatisfy { Set($0.map(\.words)).count == 1 }, "\(context): a seed masks two vectors")
        #expect(Set(opened.map(\.assignment)).count == opened.count, "\(context): an assignment left in two versions")
        #expect(Set(opened.map(\.pseudonym)).count <= 1, "\(context): the device has two pseudonyms")
    }

    /// The device dies at each point in turn.
    ///
    /// Its training gives something else each time, as training does.
    @Test(.slow) func aDeathAtAnyPointLeavesNoSeedWithTwoVectors() async throws {
        let times = Counter()
        let trainer = Trainer { _ in
            let count = Float(times.increase())
            return [count, 1, -count, 0.5]
        }
        var point = 1
        while true {
            let (device, rehearsal) = (try RehearsalDevice(), MaskedRehearsal())
            let (reached, target) = (Counter(), point)
            do {
                let client = try device.masked(rehearsal, trainer) {
                    guard reached.increase() >= target else { return }
                    rehearsal.server.state.withLock { $0.isDead = true }
                    throw RehearsalServer.Killed()
                }
                for _ in 0..<2 { _ = try await client.participateOnce(waitSeconds: 0) }
            } catch is RehearsalServer.Killed {
            } catch is CancellationError {
            }
            rehearsal.server.state.withLock { $0.isDead = false }
            let last = reached.value
            let next = try device.masked(rehearsal, trainer)
            for _ in 0..<3 { _ = try await next.participateOnce(waitSeconds: 0) }
            try check(rehearsal, "point \(point)")
            let (accepted, failed) = rehearsal.server.state.withLock { ($0.accepted.count, $0.failed) }
            #expect(accepted >= 3 && failed.isEmpty, "point \(point): \(accepted) accepted, \(failed)")
            let ledger = try device.ledger()
            #expect(ledger.count == Set(ledger).count, "point \(point): \(ledger)")
            #expect(!(try device.files()).contains { $0.hasSuffix(".tmp") || $0.contains("damaged") }, "point \(point)")
            if last < target { break }
            point += 1
        }
        // Two participations with registration, and the points between update, seed and file.
        #expect(point > 45, "\(point)")
    }

    /// A masked update is for one session: what was made for an attempt that is over is never sent for the next one.
    @Test func anotherAttemptMasksAgain() async throws {
        let rehearsal = MaskedRehearsal()
        let (device, trainer) = (try RehearsalDevice(), RehearsalTrainer())
        rehearsal.server.state.withLock { $0.endings = [1: "round_closed"] }
        let client = try device.masked(rehearsal, trainer)
        #expect(try await client.participateOnce(waitSeconds: 0) == .ended(code: "round_closed"))
        rehearsal.server.state.withLock { $0.attempt = 2 }
        #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 1))
        let opened = try rehearsal.opened()
        // Each one opens with the key of its own session, which `opened` looks up by assignment.
        #expect(opened.map(\.assignment) == ["asg_1", "asg_2"])
        #expect(Set(opened.map(\.seed)).count == 2)
        #expect(trainer.counts.withLock { $0 } == [1: 2])
        #expect(!(try device.files()).contains { $0.hasPrefix("report-") })
        try check(rehearsal, "attempt 2")
    }

    @Test func anUnacknowledgedUploadIsSentAgainWithTheSameBytes() async throws {
        let rehearsal = MaskedRehearsal()
        let (device, trainer) = (try RehearsalDevice(), RehearsalTrainer())
        let lost = LosingTransport(rehearsal, count: 3)
        do {
            let first = try device.client(lost, trainer, attemptLimit: 2, helper: rehearsal.pinned)
            await #expect(throws: ClientError.self) { try await first.participateOnce(waitSeconds: 0) }
        }
        let next = try device.client(lost, trainer, helper: rehearsal.pinned)
        #expect(try await next.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 1))
        #expect(try rehearsal.opened().count == 1 && trainer.counts.withLock { $0 } == [1: 1])
    }

    /// Loses the answers to some uploads, whose bytes have arrived.
    private final class LosingTransport: Transport {
        private let next: MaskedRehearsal
        private let left: Counter

        init(_ next: MaskedRehearsal, count: Int) { (self.next, left) = (next, Counter(count)) }

        func send(_ request: TransportRequest) async throws -> TransportResponse {
            let answer = try await next.send(request)
            guard request.url.hasSuffix("/update"), left.value > 0 else { return answer }
            left.value -= 1
            throw ClientError(code: "network", message: "no answer")
        }
    }

    /// A large file goes in parts, and says what it is where something in between knows no parts.
    @Test func aLargeMaskedUpdateIsResumable() async throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/update"
        let bytes = Data(repeating: 5, count: 2 << 20)
        try bytes.write(to: URL(fileURLWithPath: path))
        let transport = PartsTransport()
        let session = ServerSession(
            server: "http://server",
            transport: transport,
            retry: RetryPolicy(attemptLimit: 2, sleep: { _ in }, uniform: { 0.5 }),
            limits: .init(),
            voice: ClientVoice(logger: nil, notify: { _ in }),
            token: { nil }
        )
        let digest = Data(SHA256.hash(data: bytes)).base64EncodedString()
        let receipt = try await session.upload(
            path,
            to: try #require(ServerPath("/v1/assignments/asg_1/update")),
            contentType: MaskedUpdateFile.mediaType,
            expected: ExpectedReceipt(assignment: "asg_1", sha256: digest),
            isRepeated: false,
            within: 60
        )
        #expect(receipt.byteCount == bytes.count)
        let seen = transport.seen.withLock { $0 }
        #expect(seen == ["PATCH application/partial-upload", "PUT \(MaskedUpdateFile.mediaType)"])
    }

    /// Knows no parts of uploads.
    private final class PartsTransport: Transport {
        let seen = Mutex<[String]>([])

        func send(_ request: TransportRequest) async throws -> TransportResponse {
            seen.withLock { $0.append("\(request.method) \(request.headers["Content-Type"] ?? "")") }
            guard request.method == "PUT", case .file(let path, 0) = request.body,
                let body = FileManager.default.contents(atPath: path)
            else { return TransportResponse(status: 405) }
            let receipt = UpdateReceipt(
                assignment: "asg_1",
                state: .accepted,
                sha256: Array(SHA256.hash(data: body)).hexadecimal,
                bytes: body.count
            )
            return TransportResponse(status: 200, body: try WireCoding.encode(receipt))
        }
    }

    // MARK: - Before and after the key was pinned

    @Test func anUpdateOfBeforeTheKeyWasPinnedIsNotSent() async throws {
        let (device, trainer) = (try RehearsalDevice(), RehearsalTrainer())
        let open = RehearsalServer(mode: "central") { _, key in key == "PUT update" ? .unreachable : nil }
        do {
            let client = try device.client(open, trainer, attemptLimit: 1)
            await #expect(throws: ClientError.self) { try await client.participateOnce(waitSeconds: 0) }
        }
        #expect(try device.files().contains("pending.json"))
        let rehearsal = MaskedRehearsal()
        let client = try device.masked(rehearsal, trainer)
        #expect(try await client.participateOnce(waitSeconds: 0) == .ended(code: "privacy_refused"))
        #expect(rehearsal.server.state.withLock { $0.sent.isEmpty })
        #expect(Set(try device.files()).isDisjoint(with: ["pending.json", "update.safetensors"]))
    }

    @Test func aDamagedPseudonymIsPutAsideAndTold() async throws {
        let rehearsal = MaskedRehearsal()
        let device = try RehearsalDevice()
        do {
            let client = try device.masked(rehearsal, RehearsalTrainer())
            _ = try await client.participateOnce(waitSeconds: 0)
        }
        let name = try #require(try device.files().first { $0.hasPrefix("pseudonym-") })
        try Data("{".utf8).write(to: URL(fileURLWithPath: device.path + "/" + name))
        let client = try device.masked(rehearsal, RehearsalTrainer())
        #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 2))
        #expect(device.notices.withLock { $0.contains { $0.message.contains("pseudonym") } })
        #expect(try device.files().contains { $0.hasPrefix(name + ".damaged-") })
        #expect(Set(try rehearsal.opened().map(\.pseudonym)).count == 2)
    }

    // MARK: - Non-interference

    /// Requests, their order, sizes, codes and header fields are the same for any data; with noise and without.
    @Test(arguments: ["central", "none"]) func transcriptsDoNotDependOnData(_ mode: String) async throws {
        let worlds: [(String, Trainer)] = [
            ("data", Trainer { _ in [1, 2, 3, 4] }), ("others", Trainer { _ in [0, 0, -1e-9, 1e30] }),
            ("none", Trainer { _ in throw LocalTrainingError.noData }),
            ("unreadable", Trainer { _ in throw LocalTrainingError.unusableData(reason: "a cell") }),
            ("not finite", Trainer { _ in [.nan, 0, 0, 0] }), ("infinite", Trainer { _ in [.infinity, 0, 0, 0] }),
            ("an error of its own", Trainer { _ in throw CocoaError(.fileReadNoPermission) }),
        ]
        var expected: [MaskedRehearsal.Seen]?
        for (name, trainer) in worlds {
            let rehearsal = MaskedRehearsal(mode: mode, bits: 32)
            let client = try RehearsalDevice().masked(rehearsal, trainer)
            for round in 1...2 {
                #expect(
                    try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: round),
                    "\(name)"
                )
            }
            if let expected { #expect(rehearsal.transcript == expected, "\(name)") }
            expected = expected ?? rehearsal.transcript
            let opened = try rehearsal.opened()
            #expect(opened.count == 2, "\(name)")
            guard !["data", "others"].contains(name) else { continue }
            #expect(opened.allSatisfy { $0.integers == [0, 0, 0, 0] }, "\(name)")
            #expect(await client.lastShortfall != nil, "\(name)")
        }
    }
}
