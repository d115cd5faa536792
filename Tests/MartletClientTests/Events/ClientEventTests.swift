import Foundation
import Logging
import MartletClient
import MartletTesting
import Synchronization
import TestSupport
import Testing
import WireFormat

/// What a client tells of what it does, with the public in-memory server.
@Suite(.timeLimit(.minutes(10)))
struct ClientEventTests {
    private let directory: TemporaryDirectory
    private static let model = ParameterVector(
        zeros: ParameterLayout([.init(name: "w", shape: [3]), .init(name: "b", shape: [1])])
    )

    init() throws { directory = try TemporaryDirectory() }

    /// Adds one to each value, says how far it is, or does what it is told.
    private struct Trainer: LocalTrainer {
        var work: @Sendable (TrainingInstructions) async throws -> Void = { _ in }

        func train(model: ParameterVector, instructions: TrainingInstructions) async throws -> TrainingResult {
            instructions.onProgress?(0.5)
            try await work(instructions)
            instructions.onProgress?(7)
            var trained = model
            try trained.update("w") { values, _ in for index in values.indices { values[index] += 1 } }
            return TrainingResult(delta: trained - model, exampleCount: 4)
        }
    }

    private func client(
        _ server: InMemoryServer,
        _ trainer: Trainer = Trainer(),
        name: String = "phone",
        logger: Logger? = nil
    ) throws -> FederatedClient {
        FederatedClient(
            server: "http://server",
            enrollmentToken: "enroll",
            state: try ClientState(directory: directory.path + "/" + name),
            trainer: trainer,
            transport: server,
            models: try ModelCache(directory: directory.path + "/models-" + name),
            retry: RetryPolicy(attemptLimit: 2, sleep: { _ in try Task.checkCancellation() }, uniform: { 0 }),
            logger: logger
        )
    }

    /// All events until one fits, passing ones left out.
    private func events(_ events: ClientEvents, until isLast: (ClientEvent) -> Bool) async -> [ClientEvent] {
        var found: [ClientEvent] = []
        for await event in events {
            switch event {
            case .progress, .bytes: break
            default: found.append(event)
            }
            if isLast(event) { break }
        }
        return found
    }

    @Test func aParticipationIsToldFromBeginningToEnd() async throws {
        let server = try InMemoryServer(model: Self.model, run: .init(rounds: 1))
        let client = try client(server)
        let (all, other) = (client.events(), client.events())
        #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: "run_1", round: 1))
        #expect(
            try await client.participateOnce(waitSeconds: 0)
                == .noWork(reason: .noRun, retrySeconds: 1)
        )
        let size = try #require(server.updates.first).metadata.isEmpty ? 0 : await client.bytesUp
        let expected: [ClientEvent] = [
            .phase(.waiting), .phase(.registering), .phase(.waiting),
            .assigned(run: "run_1", round: 1, evaluates: false), .phase(.downloading), .phase(.training),
            .phase(.uploading), .accepted(run: "run_1", round: 1, byteCount: size), .phase(.waiting),
            .noWork(.noRun, retrySeconds: 1),
        ]
        func isLast(_ event: ClientEvent) -> Bool { event == .noWork(.noRun, retrySeconds: 1) }
        let told = await events(all, until: isLast)
        #expect(told.filter { $0 != .phase(.waiting) } == expected.filter { $0 != .phase(.waiting) })
        // Each listener has all of them.
        #expect(await events(other, until: isLast) == told)
        #expect(server.model["w"].map(Array.init) == [1, 1, 1] && server.committedRounds == 1)
    }

    @Test func progressAndBytesAreTold() async throws {
        let server = try InMemoryServer(model: Self.model)
        let client = try client(server)
        let seen = Mutex<[ClientEvent]>([])
        let listening = client.events()
        let task = Task {
            for await event in listening {
                seen.withLock { $0.append(event) }
                if case .accepted = event { break }
            }
        }
        _ = try await client.participateOnce(waitSeconds: 0)
        await task.value
        let events = seen.withLock { $0 }
        // What a trainer says is held within 0 and 1; a newer one may have replaced the first.
        let shares = events.compactMap { if case .progress(let share) = $0 { share } else { nil } }
        #expect(shares.last == 1 && shares.allSatisfy { (0...1).contains($0) })
        #expect(events.contains { if case .bytes(let moved) = $0 { moved.receivedByteCount > 0 } else { false } })
    }

    @Test func aRefusalIsToldWithItsReasonAndItsSentence() async throws {
        struct Odd: Error, CustomStringConvertible { let description = "the camera is in use" }
        let server = try InMemoryServer(model: Self.model)
        let client = try client(server, Trainer { _ in throw Odd() })
        let all = client.events()
        #expect(try await client.participateOnce(waitSeconds: 0) == .ended(.device(.trainingFailed)))
        let told = await events(all) { if case .refused = $0 { true } else { false } }
        #expect(told.last == .refused(.device(.trainingFailed), sentence: "the trainer failed: the camera is in use"))
        #expect(server.failures.map(\.code) == ["training_failed"])
        // The same stands in the state directory, for an owner who was not listening.
        let kept = FileManager.default.contents(atPath: directory.path + "/phone/endings.jsonl") ?? Data()
        #expect(String(decoding: kept, as: UTF8.self).contains("the camera is in use"))
    }

    @Test func theServersRefusalHasItsOwnReason() async throws {
        let server = try InMemoryServer(model: Self.model) { _, request in
            guard request.method == "PUT" else { return nil }
            let body = #"{"code": "round_closed", "status": 410, "title": "t", "detail": "the round is over"}"#
            return .answer(
                TransportResponse(
                    status: 410,
                    headers: ["content-type": "application/problem+json"],
                    body: Data(body.utf8)
                )
            )
        }
        #expect(try await client(server).participateOnce(waitSeconds: 0) == .ended(.server(.roundClosed)))
    }

    /// Every code that ends work, on either side, has a name of its own; what a newer server says is kept as it is.
    @Test func allCodesOfTheProtocolHaveNames() {
        let ending = RefusalVerdict.table.filter { $0.key != .clientIsOut }.values.reduce(into: Set()) {
            $0.formUnion($1)
        }
        #expect(Set(EndingReason.Server.allCases.map(\.rawValue)) == ending)
        for code in FailureCode.allCases.map(\.rawValue) + ClientError.localCodes.filter({ $0 != "state_locked" }) {
            guard case .device = EndingReason(code: code) else {
                Issue.record("\(code) has no name")
                continue
            }
        }
        for code in ending.union(EndingReason.Device.allCases.map(\.rawValue)) {
            #expect(EndingReason(code: code).code == code && EndingReason(code: code) != .unknown(code))
        }
        #expect(EndingReason(code: "moon_phase") == .unknown("moon_phase"))
        for code in ["no_run", "no_open_slot", "participation_limit", "too_soon", "quarantined", "between_attempts"] {
            #expect(NoWorkReason(code: code).code == code && NoWorkReason(code: code) != .unknown(code))
        }
        #expect(NoWorkReason(code: "moon_phase").code == "moon_phase")
    }

    /// A loop that falls behind loses progress, not what counts; one that is cancelled, or whose client is gone, ends.
    @Test func slowListenersAndEndsAreHandled() async throws {
        let server = try InMemoryServer(model: Self.model, run: .init(rounds: 5))
        var current: FederatedClient? = try client(
            server,
            Trainer { instructions in for step in 0..<5000 { instructions.onProgress?(Double(step) / 5000) } }
        )
        let all = try #require(current).events()
        for _ in 0..<5 { _ = try await current?.participateOnce(waitSeconds: 0) }
        current = nil
        var accepted = 0
        var count = 0
        for await event in all {
            count += 1
            if case .accepted = event { accepted += 1 }
        }
        #expect(accepted == 5 && count < ClientEvents.limit)
        let idle = try client(server, name: "idle")
        let task = Task {
            var count = 0
            for await _ in idle.events() { count += 1 }
            return count
        }
        task.cancel()
        #expect(await task.value == 0)
    }

    @Test func aLoggerIsToldWithoutSecrets() async throws {
        let lines = Mutex<[String]>([])
        struct Handler: LogHandler {
            let write: @Sendable (String) -> Void
            var metadata: Logger.Metadata = [:]
            var logLevel = Logger.Level.trace
            subscript(metadataKey key: String) -> Logger.Metadata.Value? {
                get { metadata[key] }
                set { metadata[key] = newValue }
            }
            func log(event: LogEvent) { write("\(event.level) \(event.message) \(event.metadata ?? [:])") }
        }
        let logger = Logger(label: "test") { _ in Handler { line in lines.withLock { $0.append(line) } } }
        let server = try InMemoryServer(model: Self.model)
        _ = try await client(server, logger: logger).participateOnce(waitSeconds: 0)
        let text = lines.withLock { $0.joined(separator: "\n") }
        #expect(text.contains("An update was accepted") && text.contains("run_1"))
        #expect(!text.contains("enroll") && !text.contains("token-of"))
    }

    // MARK: - Asynchronous trainers

    @Test func anAsynchronousTrainerIsReachedByCancelling() async throws {
        let server = try InMemoryServer(model: Self.model)
        let begun = Mutex(false)
        let ended = Mutex(false)
        let client = try client(
            server,
            Trainer { _ in
                begun.withLock { $0 = true }
                defer { ended.withLock { $0 = true } }
                try await RealTime.untilCancelled()
            }
        )
        let task = Task { try await client.run() }
        try await wait(for: "the training to begin") { begun.withLock { $0 } }
        task.cancel()
        try await task.value
        try await wait(for: "the trainer to notice") { ended.withLock { $0 } }
        // The assignment can be gone on with.
        #expect(server.failures.isEmpty)
        let next = try self.client(server, name: "other")
        #expect(try await next.participateOnce(waitSeconds: 0) == .noWork(reason: .noOpenSlot, retrySeconds: 1))
    }

    @Test func atMostSoManyTrainersWorkAtATimeAlsoWhileTheyWait() async throws {
        let server = try InMemoryServer(model: Self.model, run: .init(rounds: 1, goal: 6))
        let counts = Mutex((now: 0, most: 0))
        let queue = ArithmeticQueue(width: 2)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for index in 0..<6 {
                let client = FederatedClient(
                    server: "http://server",
                    enrollmentToken: "enroll",
                    state: try ClientState(directory: directory.path + "/many-\(index)"),
                    trainer: Trainer { _ in
                        counts.withLock { $0 = ($0.now + 1, max($0.most, $0.now + 1)) }
                        for _ in 0..<20 { await Task.yield() }
                        try await RealTime.passInTask(0.005, because: "trainers that overlap are counted")
                        counts.withLock { $0.now -= 1 }
                    },
                    transport: server,
                    models: try ModelCache(directory: directory.path + "/many-models-\(index)"),
                    arithmetic: queue
                )
                group.addTask { _ = try await client.participateOnce(waitSeconds: 0) }
            }
            try await group.waitForAll()
        }
        #expect(counts.withLock { $0.most } <= 2 && server.updates.count == 6)
    }
}
