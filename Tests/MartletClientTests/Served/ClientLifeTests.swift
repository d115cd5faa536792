import Coordination
import CoordinatorAPI
import Foundation
import HTTPServing
import LocalTraining
import Logging
import MartletClient
import Synchronization
import Tensors
import TestBenches
import TestSupport
import Testing

/// libcurl, with a count of the requests by the last part of their path.
private final class CountingTransport: Transport {
    private let curl = CurlTransport()
    private let counts = Mutex<[String: Int]>([:])

    func count(_ name: String) -> Int { counts.withLock { $0[name] ?? 0 } }

    func send(_ request: TransportRequest) async throws -> TransportResponse {
        let response = try await curl.send(request)
        let name = request.url.split(separator: "/").last.map(String.init) ?? ""
        counts.withLock { $0[name, default: 0] += 1 }
        return response
    }
}

/// libcurl, with the bytes of updates.
private final class RecordingTransport: Transport {
    private let curl = CurlTransport()
    let updates = Mutex<[Data]>([])

    func send(_ request: TransportRequest) async throws -> TransportResponse {
        if case .file(let path, _) = request.body, let data = FileManager.default.contents(atPath: path) {
            updates.withLock { $0.append(data) }
        }
        return try await curl.send(request)
    }
}

/// A trainer made of closures.
private struct ScriptedTrainer: LocalTrainer {
    var canRehearse: Bool { true }
    var training: @Sendable (TrainingInstructions) throws -> Void = { _ in }
    var metrics = TrainingMetrics()

    func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
        try training(instructions)
        var result = TrainingResult(delta: model, exampleCount: 3, stepCount: 1)
        result.metrics.custom = metrics.custom
        return result
    }

    func evaluate(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingMetrics { metrics }
}

/// The SDK against the server over sockets: signs of life, work that is no longer wanted, evaluation.
///
/// The two clocks are years apart: nothing that a client is told or sends depends on its own.
@Suite(.timeLimit(.minutes(10)))
struct ClientLifeTests {
    /// A served run, an enrollment token, and what stops the server.
    private func serve(
        _ service: Service,
        population: String = #"{"name": "p"}"#,
        _ change: (inout RunFile) throws -> Void
    ) async throws -> (run: String, url: String, enrollment: String, server: HTTPServer) {
        _ = try await service.post("/v1/populations", population)
        let created = try await service.post("/v1/runs", try RunFile.sample(change).text)
        let run = try #require(created.json["id"] as? String, "\(created.json)")
        let model = Array(SafetensorsWriter.encode(ParameterVector(zeros: Service.layout)))
        #expect(try await service.call("PUT", "/v1/runs/\(run)/model", token: service.admin, model).status == 201)
        #expect(try await service.post("/v1/runs/\(run)/start").status == 200)
        let enrollment = try #require(
            try await service.post("/v1/populations/p/enrollment-tokens", #"{"max_uses": 9}"#).json["token"] as? String
        )
        let configuration = ServerConfiguration(host: "127.0.0.1", port: 0)
        let server = HTTPServer(configuration: configuration, router: service.router, logger: Logger(label: "test"))
        let port = try await server.start()
        return (run, "http://127.0.0.1:\(port)", enrollment, server)
    }

    private func client(
        _ url: String,
        _ enrollment: String,
        _ directory: String,
        _ trainer: ScriptedTrainer,
        _ transport: any Transport
    ) throws -> FederatedClient {
        FederatedClient(
            server: url,
            enrollmentToken: enrollment,
            state: try ClientState(directory: directory),
            trainer: trainer,
            transport: transport,
            models: try ModelCache(directory: directory + "/models"),
            arithmetic: ArithmeticQueue(width: 1)
        )
    }

    /// Who hangs up while it waits is forgotten at once: work given to it would wait for a lease in vain.
    @Test func aLongPollThatHungUpGetsNoWork() async throws {
        let service = try await Service()
        let (run, url, enrollment, server) = try await serve(service) {
            $0.cohort += ["goal": 1, "minimum": 1, "over_selection": 1]
        }
        var tokens: [String] = []
        for _ in 0..<3 {
            let answer = try await service.post("/v1/clients", token: enrollment)
            tokens.append(try #require(answer.json["token"] as? String))
        }
        let work = try await service.post("/v1/checkins", token: tokens[0]).json["assignment"] as? [String: Any]
        let port = try #require(url.split(separator: ":").last.flatMap { Int($0) })
        for _ in 0..<3 {
            var socket: LoopbackSocket? = try LoopbackSocket(port: port)
            let head =
                "POST /v1/checkins HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \(tokens[1])\r\n"
                + "Content-Type: application/json\r\nPrefer: wait=60\r\nContent-Length: 2\r\n\r\n{}"
            #expect(socket?.write(Array(head.utf8)) == true)
            try await wait(for: "the long poll") { await service.coordinator.waiterCount == 1 }
            socket = nil
            try await wait(for: "the end of the long poll") { await service.coordinator.waiterCount == 0 }
        }
        let id = try #require(work?["id"] as? String)
        let failure = try await service.post(
            "/v1/assignments/\(id)/failure",
            token: tokens[0],
            #"{"code": "no_data"}"#
        )
        #expect(failure.status == 204)
        try await service.coordinator.tick()
        let next = try await service.post("/v1/checkins", token: tokens[2])
        #expect(next.status == 201, "\(next.json)")
        let round = try await service.call("GET", "/v1/runs/\(run)/rounds/1", token: service.admin).json
        #expect(round["assigned"] as? Int == 2, "\(round)")
        await server.shutdown(gracePeriod: .seconds(5))
    }

    /// By the server's clock the work takes eight leases; without signs of life it would be given to another client.
    @Test(.slow) func heartbeatsKeepTheLeaseOfLongWork() async throws {
        let service = try await Service()
        let (run, url, enrollment, server) = try await serve(service) {
            $0.cohort += ["goal": 1, "minimum": 1, "lease_s": 1]
        }
        let transport = CountingTransport()
        let clock = service.clock
        let trainer = ScriptedTrainer(training: { _ in
            for beats in 1...10 {
                var patience = Patience("heartbeat \(beats)")
                while transport.count("heartbeat") < beats { try patience.pauseThread() }
                clock.advance(by: 0.8)
            }
        })
        let ticking = Task {
            var patience = Patience("the work to end")
            while !Task.isCancelled {
                try await service.coordinator.tick()
                try await patience.pause()
            }
        }
        let outcome = try await client(url, enrollment, service.directory.path + "/c", trainer, transport)
            .participateOnce(waitSeconds: 0)
        ticking.cancel()
        #expect(outcome == .accepted(run: run, round: 1), "\(outcome)")
        let history = try await service.call(
            "GET",
            "/v1/runs/\(run)/rounds/1/history?assignments=true",
            token: service.admin
        )
        let text = String(decoding: history.bytes, as: UTF8.self)
        #expect(text.contains("training") && !text.contains("expired"), "\(text)")
        await server.shutdown(gracePeriod: .seconds(5))
    }

    /// Two are at work for one place; when the other has delivered, this one is told at its next sign of life, and stops.
    @Test func workThatIsNoLongerWantedEndsEarly() async throws {
        let service = try await Service()
        let (run, url, enrollment, server) = try await serve(service) {
            $0.cohort += ["goal": 1, "minimum": 1, "over_selection": 2, "lease_s": 1]
        }
        let begun = Atomic<Bool>(false)
        let ended = Atomic<Bool>(false)
        let slow = ScriptedTrainer(training: { instructions in
            begun.store(true, ordering: .relaxed)
            var patience = Patience("the end of unwanted work")
            while true {
                do { try instructions.cancellation?.check() } catch {
                    ended.store(true, ordering: .relaxed)
                    throw error
                }
                try patience.pauseThread()
            }
        })
        let transport = CountingTransport()
        let first = try client(url, enrollment, service.directory.path + "/slow", slow, transport)
        let work = Task { try await first.participateOnce(waitSeconds: 0) }
        try await wait(for: "the training to begin") { begun.load(ordering: .relaxed) }
        let other = try client(
            url,
            enrollment,
            service.directory.path + "/fast",
            ScriptedTrainer(),
            CountingTransport()
        )
        #expect(try await other.participateOnce(waitSeconds: 0) == .accepted(run: run, round: 1))
        let outcome = try await work.value
        #expect([.ended(code: "round_full"), .ended(code: "round_closed")].contains(outcome), "\(outcome)")
        let hasEnded = ended.load(ordering: .relaxed)
        #expect(hasEnded)
        #expect(transport.count("update") == 0 && transport.count("failure") == 0)
        await server.shutdown(gracePeriod: .seconds(5))
    }

    @Test func aVersionIsMeasuredByItsClients() async throws {
        let service = try await Service()
        let (run, url, enrollment, server) = try await serve(service) {
            $0.cohort += ["goal": 1, "minimum": 1, "over_selection": 1]
            $0.evaluation += ["every": 1, "cohort_goal": 1]
        }
        let trained = Atomic<Int>(0)
        var metrics = TrainingMetrics()
        (metrics.nll, metrics.lossTokens, metrics.tokens, metrics.hit1) = (12, 8, 8, 2)
        let trainer = ScriptedTrainer(
            training: { _ in trained.add(1, ordering: .relaxed) },
            metrics: metrics
        )
        let transport = CountingTransport()
        let client = try client(url, enrollment, service.directory.path + "/c", trainer, transport)
        #expect(try await client.participateOnce(waitSeconds: 5) == .accepted(run: run, round: 1))
        #expect(try await client.participateOnce(waitSeconds: 5) == .accepted(run: run, round: 1))
        let count = trained.load(ordering: .relaxed)
        #expect(count == 1)
        try await service.waitForEnd(of: run)
        let model = try await service.call("GET", "/v1/runs/\(run)/models/1", token: service.admin).json
        let measured = (model["metrics"] as? [String: Any])?["federated"] as? [String: Double]
        #expect(measured?["loss"] == 1.5 && measured?["top1"] == 0.25, "\(model)")
        #expect(model["is_best"] as? Bool == true)
        await server.shutdown(gracePeriod: .seconds(5))
    }

    /// Metrics of an app's own go from its trainer to the server's curves, where the run file names them; nothing of a private run's
    /// training does.
    @Test(arguments: [true, false])
    func metricsOfAnAppAreMeansOverExamples(_ isPrivate: Bool) async throws {
        let service = try await Service()
        let (run, url, enrollment, server) = try await serve(
            service,
            population: isPrivate ? #"{"name": "p", "budget": {"epsilon": 1000, "delta": 1e-6}}"# : #"{"name": "p"}"#
        ) {
            $0.cohort += ["goal": 1, "minimum": 1, "over_selection": 1]
            if isPrivate {
                $0.privacy += ["mode": "local", "noise_multiplier": 1]
                $0.privacy.clipping.norm = 1
                $0.aggregation.weighting = "uniform"
            } else {
                $0.metrics = ["pearson"]
                $0.evaluation += ["every": 1, "cohort_goal": 1]
            }
        }
        var metrics = TrainingMetrics()
        (metrics.tokens, metrics.custom) = (3, ["pearson": 1.5, "undeclared": 4])
        let (recorder, state) = (RecordingTransport(), service.directory.path + "/c")
        let client = try client(url, enrollment, state, ScriptedTrainer(metrics: metrics), recorder)
        #expect(try await client.participateOnce(waitSeconds: 5) == .accepted(run: run, round: 1))
        let sent = recorder.updates.withLock { String(decoding: $0.joined(), as: UTF8.self) }
        #expect(sent.contains("pearson") != isPrivate)
        if !isPrivate {
            #expect(try await client.participateOnce(waitSeconds: 5) == .accepted(run: run, round: 1))
            try await service.waitForEnd(of: run)
            let model = try await service.call("GET", "/v1/runs/\(run)/models/1", token: service.admin).json
            let measured = model["metrics"] as? [String: [String: Double]]
            #expect(measured?["federated"]?["pearson"] == 0.5, "\(model)")
            #expect(measured?["training"]?["pearson"] == 0.5, "\(model)")
            #expect(measured?.values.contains { $0["undeclared"] != nil } == false)
        }
        await server.shutdown(gracePeriod: .seconds(5))
    }

    /// With central privacy only sums for what is published leave the device, the server takes nothing less, and the device
    /// counts what it costs.
    @Test func aPrivateVersionIsMeasuredWithNoiseAndCharged() async throws {
        let service = try await Service()
        let (run, url, enrollment, server) = try await serve(
            service,
            population: #"{"name": "p", "budget": {"epsilon": 20, "delta": 1e-5}}"#
        ) {
            $0.cohort += ["goal": 1, "minimum": 1, "over_selection": 1]
            $0.privacy += ["mode": "central", "noise_multiplier": 30]
            $0.evaluation += ["every": 1, "cohort_goal": 2, "minimum": 2, "noise_multiplier": 0.4, "metrics": ["top1"]]
        }
        var metrics = TrainingMetrics()
        (metrics.nll, metrics.lossTokens, metrics.tokens, metrics.hit1) = (12, 8, 8, 8)
        let path = service.directory.path + "/c"
        let client = try client(url, enrollment, path, ScriptedTrainer(metrics: metrics), CountingTransport())
        #expect(try await client.participateOnce(waitSeconds: 5) == .accepted(run: run, round: 1))
        #expect(try await client.participateOnce(waitSeconds: 5) == .accepted(run: run, round: 1))
        let ledger = try String(contentsOfFile: path + "/ledger.json", encoding: .utf8)
        #expect(ledger.contains("0.4") && ledger.contains("30"), "\(ledger)")
        // The other one by hand: sums that lack what is published are refused, and may be sent again.
        let token = try #require(try await service.post("/v1/clients", token: enrollment).json["token"] as? String)
        let work = try await service.post("/v1/checkins", token: token).json["assignment"] as? [String: Any]
        let updateURL = try #require(work?["update_url"] as? String)
        #expect((work?["release"] as? [String: Any])?["metrics"] as? [String] == ["top1"])
        var answers: [Service.Answer] = []
        for sums in [#"{"nll": 1, "tokens": 8}"#, #"{"hit1": 8, "tokens": 8}"#, #"{"hit1": 8, "tokens": 8}"#] {
            let document = Array(#"{"num_examples": 8, "metrics": \#(sums)}"#.utf8)
            let room = try #require(work?["update_bytes"] as? Int) - document.count
            answers.append(
                try await service.call(
                    "PUT",
                    updateURL,
                    token: token,
                    document + [UInt8](repeating: 0x20, count: room),
                    ["Content-Type": "application/json"]
                )
            )
        }
        #expect(answers.map(\.status) == [422, 200, 200])
        #expect(answers[0].json["code"] as? String == "metrics_missing")
        try await service.waitForEnd(of: run)
        let model = try await service.call("GET", "/v1/runs/\(run)/models/1", token: service.admin).json
        let measured = (model["metrics"] as? [String: Any])?["federated"] as? [String: Double]
        // Of two clients the noise may leave nothing; what it leaves is the one rate, in its range.
        #expect(measured?.keys.sorted() ?? ["top1"] == ["top1"] && (0...1).contains(measured?["top1"] ?? 0), "\(model)")
        let budget = try await service.call("GET", "/v1/populations/p", token: service.admin).json["budget"]
        #expect(((budget as? [String: Any])?["spent_epsilon"] as? Double ?? 0) > 10, "\(String(describing: budget))")
        await server.shutdown(gracePeriod: .seconds(5))
    }

    /// The run says what counts as enough; the place of an update of less is free again.
    @Test func partialWorkCountsFromTheRunsLeastNumberOfExamples() async throws {
        let service = try await Service()
        let (run, _, enrollment, server) = try await serve(service) {
            $0.cohort += ["goal": 1, "minimum": 1, "over_selection": 1, "min_examples": 5]
        }
        var answers: [Service.Answer] = []
        for examples in [4, 5] {
            let token = try #require(try await service.post("/v1/clients", token: enrollment).json["token"] as? String)
            let assignment = try await service.post("/v1/checkins", token: token).json["assignment"] as? [String: Any]
            let url = try #require(assignment?["update_url"] as? String, "the place is free again")
            let update = SafetensorsWriter.encode(
                ParameterVector(zeros: Service.layout),
                metadata: Service.base(Service.layout, ["num_examples": String(examples)])
            )
            answers.append(
                try await service.call(
                    "PUT",
                    url,
                    token: token,
                    Array(update),
                    ["Content-Type": "application/vnd.safetensors"]
                )
            )
        }
        #expect(answers.map(\.status) == [422, 200])
        #expect((answers[0].json["detail"] as? String)?.contains("5 and more") == true, "\(answers[0].json)")
        let round = try await service.call("GET", "/v1/runs/\(run)/rounds/1", token: service.admin).json
        #expect(round["accepted"] as? Int == 1 && round["rejected"] as? Int == 1)
        await server.shutdown(gracePeriod: .seconds(5))
    }
}
