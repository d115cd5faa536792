import Coordination
import CoordinatorAPI
import Foundation
import HTTPServing
import HTTPTypes
import LocalTraining
import Logging
import MartletClient
import Synchronization
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// A device and the heads of the privacy ledger that it is told: extended, forked, restored by an operator.
@Suite(.timeLimit(.minutes(30)))
struct LedgerForkTests {
    /// The device's way to whichever server answers at the moment.
    private final class Routed: Transport {
        let router: Mutex<Router>
        init(_ router: Router) { self.router = Mutex(router) }

        func send(_ request: TransportRequest) async throws -> TransportResponse {
            var headers: HTTPFields = [:]
            for (name, value) in request.headers { headers[try #require(HTTPField.Name(name))] = value }
            var body: [UInt8] = []
            if case .bytes(let data) = request.body { body = Array(data) }
            var asked = try ServerRequest(
                method: request.method,
                rawTarget: request.url.replacing("http://server", with: ""),
                headers: headers,
                body: MemoryBody(body),
                requestID: "test"
            )
            asked.remoteAddress = "192.0.2.7"
            let response = await router.withLock { $0 }.handle(asked)
            guard case .bytes(let bytes) = response.body else { return TransportResponse(status: response.status) }
            return TransportResponse(
                status: response.status,
                headers: ["content-type": response.headers[.contentType] ?? ""],
                body: Data(bytes)
            )
        }
    }

    private struct NoTrainer: LocalTrainer {
        var canRehearse: Bool { true }
        func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
            throw LocalTrainingError.noData
        }
        func evaluate(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingMetrics { .init() }
    }

    private let directory: TemporaryDirectory
    private let clock = TestClock()
    init() throws { directory = try TemporaryDirectory() }

    private func serve(_ name: String, _ store: any RunStore) async throws -> (coordinator: Coordinator, router: Router)
    {
        var configuration = CoordinatorConfiguration(dataDirectory: directory.path + "/" + name)
        configuration.now = { [clock] in clock.now }
        let coordinator = try await Coordinator(
            configuration: configuration,
            store: store,
            logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
        )
        return (
            coordinator,
            CoordinatorAPI(coordinator: coordinator, isOpen: false, makeInitialModel: { _ in nil }).router()
        )
    }

    private func store(_ state: StoredState) throws -> InMemoryRunStore {
        let store = InMemoryRunStore()
        try store.commit(
            state.populations.map { .population($0) } + state.tokens.map { .token($0) }
                + state.clients.map { .client($0) } + state.ledger.map { .ledger($0) }
        )
        return store
    }

    /// Appends as many changes of the budget to a stored ledger.
    private func extend(_ store: InMemoryRunStore, by count: Int, epsilon: Int) throws {
        let state = try store.load()
        var population = try #require(state.populations.first)
        var ledger = try PrivacyLedger(verifying: state.ledger)
        let last = try #require(state.ledger.last)
        let event = last.event.replacing(/"epsilon":[0-9.]+/, with: "\"epsilon\":\(epsilon)")
        try #require(event != last.event)
        var changes: [StoreChange] = []
        for index in 1...count {
            let row = try ledger.append(
                population: population.id,
                run: "",
                round: last.round + index,
                attempt: 0,
                state: .committed,
                event: event,
                epsilonAfter: 0,
                at: clock.now
            )
            changes.append(.ledger(row))
        }
        population.budgetEpsilon = Double(epsilon)
        try store.commit(changes + [.population(population)])
    }

    @Test func aDeviceTakesOnlyALedgerThatExtendsWhatItSaw() async throws {
        let first = InMemoryRunStore()
        let (coordinator, router) = try await serve("server", first)
        _ = try await coordinator.createPopulation(
            PopulationRequest(name: "p", budget: BudgetSpecification(epsilon: 100, delta: 1e-5))
        )
        let transport = Routed(router)
        let device = FederatedClient(
            server: "http://server",
            enrollmentToken: try await coordinator.createEnrollmentToken(
                population: "p",
                EnrollmentTokenRequest(maxUses: 1)
            ),
            state: try ClientState(directory: directory.path + "/client"),
            trainer: NoTrainer(),
            transport: transport,
            models: try ModelCache(directory: directory.path + "/models")
        )
        try await device.register()
        func head(_ coordinator: Coordinator) async -> PopulationLedgerHead? {
            await coordinator.ledgerState().populations.first
        }
        func spend(_ coordinator: Coordinator, _ epsilons: some Sequence<Int>) async throws {
            for epsilon in epsilons {
                _ = try await coordinator.changeBudget(population: "p", .init(epsilon: Double(epsilon)))
            }
        }
        func refusal(_ head: PopulationLedgerHead?) async throws -> String? {
            try await ServerLedgerCheck(device.device).refusal(head, isPrivate: true)
        }
        func kept() -> Int? {
            FileManager.default.contents(atPath: directory.path + "/client/ledger-head.json")
                .flatMap { try? JSONDecoder().decode(PopulationLedgerHead.self, from: $0) }?.number
        }
        #expect(try await refusal(await head(coordinator)) == nil && kept() == 1)
        try await spend(coordinator, [90, 80, 70])
        #expect(try await refusal(await head(coordinator)) == nil && kept() == 4)
        #expect(try await refusal(await head(coordinator)) == nil)
        let backup = try first.load()
        // More than a page of links; stored at once, since each row that a server writes waits for the disk.
        try extend(first, by: 4200, epsilon: 28)
        let grown = try await serve("server", first)
        transport.router.withLock { $0 = grown.router }
        #expect(try await refusal(await head(grown.coordinator)) == nil && kept() == 4204)
        for bad in [
            nil,
            PopulationLedgerHead(
                population: "pop_2",
                number: 9,
                hash: try #require(await head(grown.coordinator)).hash
            ),
        ] {
            #expect(try await refusal(bad)?.contains("ledger_forked") == true)
        }

        // The same server restored from a backup: lower, until an administrator acknowledges, which names what was lost.
        let restored = try await serve("server", try store(backup))
        transport.router.withLock { $0 = restored.router }
        #expect(
            try await refusal(await head(restored.coordinator))?.contains("ends with row 4, and row 4204 was seen")
                == true
        )
        #expect(kept() == 4204)
        _ = try await restored.coordinator.acknowledgeRollback(reason: "the disk failed")
        #expect(await device.ledgerNotice?.contains("ledger_forked") == true)
        // The budget of the second record is the lower one, and has a row of its own before the acknowledgement's.
        #expect(try await refusal(await head(restored.coordinator)) == nil && kept() == 6)
        let notice = await device.ledgerNotice
        #expect(notice?.contains("was restored from a backup") == true && notice?.contains("the disk failed") == true)
        // Said once: from here on it is the ledger that the device knows.
        _ = await device.takeLedgerNotice()
        try await spend(restored.coordinator, [3, 2])
        #expect(try await refusal(await head(restored.coordinator)) == nil)
        #expect(await device.ledgerNotice == nil && kept() == 8)

        // Another history of the same backup, as long and longer, that nobody acknowledged.
        let forked = try await serve("fork", try store(backup))
        transport.router.withLock { $0 = forked.router }
        try await spend(forked.coordinator, [60, 59, 58, 57])
        #expect(try await refusal(await head(forked.coordinator))?.contains("row 8 does not lead back") == true)
        try await spend(forked.coordinator, [56])
        #expect(try await refusal(await head(forked.coordinator))?.contains("ledger_forked") == true && kept() == 8)
        // An administrator may name heads that only devices know of.
        let lost = try #require(await head(restored.coordinator))
        _ = try await forked.coordinator.acknowledgeRollback(reason: "two servers", lostHeads: [lost])
        #expect(try await refusal(await head(forked.coordinator)) == nil)
        #expect(await device.ledgerNotice?.contains("two servers") == true)
    }

    /// A page has 32 bytes a row and a bound, and is for the population's own clients and for staff.
    @Test func linksAreForThePopulation() async throws {
        let bench = try await PrivateBench()
        try await bench.begin(
            privacy: #"{"mode": "central", "noise_multiplier": 1}"#,
            cohort: #"{"goal": 1, "max_participations": 1}"#,
            clients: 1
        )
        let id = try #require(try await bench.call("GET", "/v1/populations/p").json["id"] as? String)
        let head = try #require(
            (try await bench.call("GET", "/v1/ledger").json["populations"] as? [[String: Any]])?.first
        )
        #expect(head["population"] as? String == id && head["number"] as? Int == 2)
        let work = try #require(try await bench.checkIn(0)["assignment"] as? [String: Any])
        #expect((work["ledger_head"] as? [String: Any])?["hash"] as? String == head["hash"] as? String)
        for (path, token, status) in [
            ("/v1/populations/\(id)/ledger/links?from=0", bench.clients[0], 200),
            ("/v1/populations/\(id)/ledger/links?from=0", bench.admin, 200),
            ("/v1/populations/\(id)/ledger/links?from=-1", bench.admin, 400),
            ("/v1/populations/\(id)/ledger/acknowledgements", bench.clients[0], 200),
            ("/v1/populations/\(id)/ledger/links", "unknown", 401),
        ] {
            #expect(try await bench.call("GET", path, token: token).status == status, "\(path)")
        }
        #expect(try await bench.coordinator.ledgerLinks(population: id, after: 0, client: nil).count == 64)
        #expect(try await bench.coordinator.ledgerLinks(population: id, after: 1, client: nil).count == 32)
        #expect(try await bench.coordinator.ledgerLinks(population: id, after: 2, client: nil).isEmpty)
        _ = try await bench.coordinator.createPopulation(
            PopulationRequest(name: "other", budget: BudgetSpecification(epsilon: 1, delta: 1e-5))
        )
        #expect(
            try await bench.call("GET", "/v1/populations/other/ledger/links", token: bench.clients[0]).status == 404
        )
    }
}
