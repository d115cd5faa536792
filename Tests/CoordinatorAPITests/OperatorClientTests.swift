import Foundation
import HTTPServing
import LocalTraining
import Logging
import MartletClient
import MartletOperator
import Tensors
import TestBenches
import TestSupport
import Testing

/// The operator's client against the real routes.
@Suite(.timeLimit(.minutes(10)))
struct OperatorClientTests {
    /// Moves every parameter by one.
    private struct StepTrainer: LocalTrainer {
        func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
            let delta = ParameterVector(layout: model.layout, values: model.values.map { _ in 1 })
            return TrainingResult(delta: delta, exampleCount: 2, stepCount: 1)
        }

        func evaluate(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingMetrics { .init() }
    }

    private func client(_ service: Service, token: String? = nil) throws -> OperatorClient {
        try OperatorClient(
            server: "http://test",
            token: token ?? service.admin + "\n",
            transport: RouterTransport(router: service.router)
        )
    }

    @Test func aRefusalSaysItsCodeAndWhatToDo() async throws {
        let service = try await Service()
        let viewer = try await client(service).createToken(.viewer, name: "reader", lifetimeSeconds: 60)
        let reader = try client(service, token: viewer.token)
        let missing = await #expect(throws: OperatorError.self) { try await reader.run("run_x") }
        #expect(missing?.status == 404 && missing?.code == "not_found" && missing?.detail == "no run 'run_x'")
        let refused = await #expect(throws: OperatorError.self) { try await reader.createPopulation("p") }
        #expect(refused?.status == 403 && refused?.code == "forbidden")
        let wrong = await #expect(throws: OperatorError.self) {
            try await client(service).createPopulation("p", epsilon: -1)
        }
        #expect(wrong?.code == "invalid_document" && wrong?.description.contains("epsilon") == true)
        #expect(throws: ClientError.self) {
            try OperatorClient(server: "ftp://x", transport: RouterTransport(router: service.router))
        }
    }

    /// A server that gives the same page again, pages without items, or another file than it named.
    private struct LyingTransport: Transport {
        var page: Data = Data()
        var file: Data?

        func send(_ request: TransportRequest) async throws -> TransportResponse {
            guard let file, let path = request.destination else {
                return TransportResponse(status: 200, headers: [:], body: page)
            }
            try file.write(to: URL(fileURLWithPath: path))
            return TransportResponse(status: 200, headers: [:], body: Data())
        }
    }

    @Test(arguments: [
        #"{"items": [], "next_cursor": "1"}"#,
        #"{"items": [{"id": "p", "name": "p", "clients": {}, "created_at": "2026-01-01T00:00:00Z"}], "next_cursor": "1"}"#,
    ])
    func aListWithoutAnEndIsRefused(_ page: String) async throws {
        let client = try OperatorClient(
            server: "http://test",
            token: nil,
            transport: LyingTransport(page: Data(page.utf8))
        )
        await #expect(throws: ListError.self) { try await client.items(of: Endpoints.populations()) }
    }

    @Test func aFileIsWhatWasNamed() async throws {
        let directory = try TemporaryDirectory()
        let client = try OperatorClient(
            server: "http://test",
            token: nil,
            transport: LyingTransport(file: Data("abc".utf8))
        )
        let target = Endpoints.weights(RunReference("r"), VersionReference(1))
        let path = directory.path + "/model"
        let right = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        try await client.download(target, to: path, sha256: right, byteLimit: 9)
        let wrong = right.replacing("b", with: "c")
        let error = await #expect(throws: ClientError.self) {
            try await client.download(target, to: path, sha256: wrong, byteLimit: 9)
        }
        #expect(error?.code == "digest_mismatch")
    }

    /// A list of more than a page comes whole.
    @Test func listsAreReadToTheirEnd() async throws {
        let service = try await Service()
        let client = try client(service)
        for index in 0..<5 { try await client.createPopulation("p\(index)") }
        let two = Endpoints.populations().with("limit", 2)
        #expect(try await client.items(of: two).map(\.name) == (0..<5).map { "p\($0)" })
    }

    /// All that an operator does in the life of a run, over a socket and libcurl.
    @Test func aRunIsOperatedFromItsPopulationToItsMetrics() async throws {
        let service = try await Service()
        let server = HTTPServer(
            configuration: ServerConfiguration(host: "127.0.0.1", port: 0),
            router: service.router,
            logger: Logger(label: "test")
        )
        let url = "http://127.0.0.1:\(try await server.start())"
        let transport = CurlTransport()
        let administrator = try OperatorClient(server: url, token: service.admin, transport: transport)
        #expect(try await administrator.health().status == "ok")
        #expect(try await administrator.readiness().status == "ready")
        let population = try await administrator.createPopulation("p")
        #expect(try await administrator.population("p").id == population.id)
        #expect(try await administrator.populations().map(\.name) == ["p"])
        let issued = try await administrator.createToken(.operator, name: "night shift", lifetimeSeconds: 3600)
        let operating = try OperatorClient(server: url, token: issued.token, transport: transport)
        let enrollment = try await administrator.createEnrollmentToken(for: "p", clientCount: 1)

        let run = try await operating.createRun(Data(Self.runFile.utf8))
        let path = service.directory.path + "/first.safetensors"
        try SafetensorsWriter.encode(ParameterVector(zeros: Service.layout)).write(to: URL(fileURLWithPath: path))
        #expect(try await operating.putModel(path, of: run.id).version == 0)
        #expect(try await operating.startRun(run.id).state == .running)
        #expect(try await operating.pauseRun(run.id).state == .paused)
        #expect(try await operating.resumeRun(run.id).state == .running)

        let state = service.directory.path + "/client"
        let client = try FederatedClient(
            server: url,
            enrollmentToken: enrollment.token,
            directory: state,
            trainer: StepTrainer(),
            transport: transport
        )
        #expect(try await client.participateOnce(waitSeconds: 1) == .accepted(run: run.id, round: 1))
        let ended = try await operating.waitForEnd(of: run.id, interval: .milliseconds(20))
        #expect(ended.state == .completed && ended.committedRounds == 1)
        let rounds = try await operating.rounds(of: run.id)
        #expect(rounds.map(\.accepted) == [1])
        #expect(try await operating.latestRounds(5, of: run.id).map(\.number) == [1])
        #expect(try await operating.round(1, of: run.id).state == .committed)

        #expect(try await operating.models(of: run.id).map(\.version) == [0, 1])
        let fetched = service.directory.path + "/last.safetensors"
        let version = try await operating.downloadModel(of: run.id, to: fetched)
        #expect(version.version == 1)
        #expect(try SafetensorsFile(path: fetched).readAll().values == [1, 1, 1, 1])
        let measured = try await operating.reportMetrics(["accuracy": 0.5], of: 1, run: run.id)
        #expect(measured.metrics?["held-out"]?["accuracy"] == 0.5)

        let second = try await operating.createRun(Data(Self.runFile.utf8), .yaml)
        #expect(try await operating.cancelRun(second.id).state == .cancelled)
        #expect(try await operating.runs().map(\.id) == [run.id, second.id])
        await server.shutdown(gracePeriod: .seconds(1))
    }

    private static let runFile = """
        population: p
        rounds: 1
        cohort: {goal: 1, minimum: 1}
        model: {architecture: external}
        """

    /// What an auditor holds and the ledger does not lead to is acknowledged by an administrator, and by nobody else.
    @Test func aLostHeadIsAcknowledged() async throws {
        let service = try await Service()
        let client = try client(service)
        let population = try await client.createPopulation("p", epsilon: 8)
        #expect(try await client.changeBudget(of: "p", epsilon: 6).budget?.epsilon == 6)
        let lost = PopulationLedgerHead(population: population.id, number: 9, hash: String(repeating: "a", count: 64))
        let request = AcknowledgementRequest(reason: "the disk failed", lostHeads: [lost])
        let issued = try await client.createToken(.operator, name: "night shift")
        let refused = await #expect(throws: OperatorError.self) {
            try await self.client(service, token: issued.token).answer(to: Endpoints.acknowledgeRollback(), request)
        }
        #expect(refused?.code == "forbidden")
        let before = try await client.answer(to: Endpoints.ledger()).decoded()
        let after = try await client.answer(to: Endpoints.acknowledgeRollback(), request).decoded()
        #expect(after.rows == before.rows + 1 && after.alarm == nil)
    }
}
