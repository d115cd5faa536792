import Coordination
import CoordinatorAPI
import Crypto
import DifferentialPrivacy
import Foundation
import HTTPServing
import HelperClient
import HelperService
import Logging
import MartletTransport
import SQLiteStorage
import SecureAggregation
import StrictJSON
import Synchronization
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// A helper as a server reaches it, which a test can take away, and whose sums it sees and can spoil.
final class WatchedHelper: HelperParty {
    struct State: Sendable {
        var isAway = false
        /// Dies after the helper has made its sum: the answer is lost.
        var losesSums = false
        /// Changes M on its way.
        var spoils: (@Sendable (inout Data) -> Void)?
        /// The lists that came, and the sums that left, by session.
        var lists: [[UInt8]] = []
        var sums: [String: Set<Data>] = [:]
        var sessions: [HelperSessionView] = []
        var cancelled: [String] = []
        var deleted: [String] = []
    }

    private let inner: any HelperParty
    let state = Mutex(State())

    init(_ inner: any HelperParty) { self.inner = inner }

    private func requireThere() throws {
        guard !state.withLock({ $0.isAway }) else {
            throw HelperFailure(code: "network", message: "nobody answers", isTemporary: true)
        }
    }

    func createSession(_ request: HelperSessionRequest) async throws -> HelperSessionView {
        try requireThere()
        let view = try await inner.createSession(request)
        state.withLock { $0.sessions.append(view) }
        return view
    }

    func cancelSession(_ session: String) async throws {
        try requireThere()
        try await inner.cancelSession(session)
        state.withLock { $0.cancelled.append(session) }
    }

    func makeSum(_ session: String, list: [UInt8], byteCount: Int, to path: String) async throws {
        try requireThere()
        state.withLock { $0.lists.append(list) }
        try await inner.makeSum(session, list: list, byteCount: byteCount, to: path)
        let url = URL(fileURLWithPath: path)
        var sum = try Data(contentsOf: url)
        let (isLost, spoil) = state.withLock { state in
            state.sums[session, default: []].insert(sum)
            return (state.losesSums, state.spoils)
        }
        if isLost { throw HelperFailure(code: "network", message: "the answer was cut", isTemporary: true) }
        if let spoil {
            spoil(&sum)
            try sum.write(to: url)
        }
    }

    func deleteSum(_ session: String) async throws {
        try requireThere()
        try await inner.deleteSum(session)
        state.withLock { $0.deleted.append(session) }
    }
}

/// The helper as one process of the server has it: after its end nothing comes back to it.
private final class MortalHelper: HelperParty {
    private let inner: WatchedHelper
    private let isDead = Mutex(false)

    init(_ inner: WatchedHelper) { self.inner = inner }

    func die() { isDead.withLock { $0 = true } }

    private func living<Answer>(_ body: () async throws -> Answer) async throws -> Answer {
        func check() throws {
            guard !isDead.withLock({ $0 }) else {
                throw HelperFailure(code: "network", message: "this server is dead", isTemporary: true)
            }
        }
        try check()
        let answer = try await body()
        try check()
        return answer
    }

    func createSession(_ request: HelperSessionRequest) async throws -> HelperSessionView {
        try await living { try await inner.createSession(request) }
    }

    func cancelSession(_ session: String) async throws { try await living { try await inner.cancelSession(session) } }

    func makeSum(_ session: String, list: [UInt8], byteCount: Int, to path: String) async throws {
        try await living { try await inner.makeSum(session, list: list, byteCount: byteCount, to: path) }
    }

    func deleteSum(_ session: String) async throws { try await living { try await inner.deleteSum(session) } }
}

/// A server with its helper, and devices of the test's own that mask.
final class ProtectedBench {
    static let layout = ParameterLayout([.init(name: "w", shape: [3]), .init(name: "b", shape: [])])
    static let noiseKey = NoiseKey(testKey: SymmetricKey(data: Data(repeating: 5, count: 32)))

    let helper: HelperFixture
    let party: WatchedHelper
    private let transport: SwitchingTransport
    private var mortal: MortalHelper
    private(set) var service: Service
    private(set) var run = ""
    private(set) var tokens: [String] = []

    var coordinator: Coordinator { service.coordinator }
    var clock: TestClock { service.clock }

    init(epsilon: Double? = nil, minimum: Int = 2) async throws {
        helper = try await HelperFixture(
            epsilon: epsilon,
            policy: HelperPolicy(minimum: minimum, maximum: 100, leastNoise: epsilon == nil ? 0 : 0.5)
        )
        let admin = "admin-token-of-more-than-32-characters"
        try await helper.helper.ensureToken(admin, role: .admin)
        let token = try await helper.helper.createToken(
            domain: HelperFixture.server.domain,
            HelperTokenRequest(server: HelperFixture.server.server)
        ).token
        transport = SwitchingTransport(HelperAPI(helper: helper.helper).router())
        party = WatchedHelper(
            try HelperConnection(url: "http://test", transport: transport, token: { token ?? "" })
        )
        mortal = MortalHelper(party)
        let directory = try TemporaryDirectory()
        service = try await Service(
            in: directory,
            store: SQLiteRunStore(path: directory.path + "/martlet.sqlite"),
            Self.configure(mortal, helper)
        )
    }

    private static func configure(
        _ party: MortalHelper,
        _ helper: HelperFixture
    ) -> (inout CoordinatorConfiguration) -> Void {
        let key = helper.helper.publicKey
        return {
            $0.helper = HelperSetting(party: party, key: key)
            $0.drawNoiseKey = { _, _ in noiseKey }
        }
    }

    /// The same data, served by another process.
    func restart() async throws {
        mortal.die()
        // What had come before is done with.
        _ = try await coordinator.run(run)
        mortal = MortalHelper(party)
        service = try await service.restarted(Self.configure(mortal, helper))
    }

    /// The helper's directory, served by another process.
    func restartHelper() async throws {
        try await helper.restart()
        transport.router.withLock { $0 = HelperAPI(helper: helper.helper).router() }
    }

    /// A population, a run of zeros that is started, and clients.
    func start(clients count: Int = 4, budget: Double? = nil, _ change: (inout RunFile) -> Void = { _ in }) async throws
    {
        let limits = budget.map { #", "budget": {"epsilon": \#($0), "delta": 1e-6}"# } ?? ""
        #expect(try await service.post("/v1/populations", #"{"name": "p"\#(limits)}"#).status == 201)
        let file = RunFile.sample {
            $0.cohort += [
                "goal": 3, "minimum": 2, "over_selection": 1.5, "selection_timeout_s": 50, "report_timeout_s": 100,
            ]
            $0.protection = ["kind": "helper", "domain": "keyboards"]
            change(&$0)
        }
        let made = try await service.post("/v1/runs", file.text)
        run = try #require(made.json["id"] as? String, "\(made.json)")
        let model = Array(SafetensorsWriter.encode(ParameterVector(zeros: Self.layout)))
        let put = try await service.call("PUT", "/v1/runs/\(run)/model", token: service.admin, model)
        #expect(put.status == 201, "\(put.json)")
        let enrollment = try #require(
            try await service.post("/v1/populations/p/enrollment-tokens", #"{"max_uses": 50}"#).json["token"] as? String
        )
        for _ in 0..<count {
            tokens.append(
                try #require(try await service.post("/v1/clients", token: enrollment).json["token"] as? String)
            )
        }
        #expect(try await service.post("/v1/runs/\(run)/start").status == 200)
    }

    /// A client's work, when its round is open.
    func assignment(_ client: Int) async throws -> Assignment {
        var found: JSONValue?
        try await wait(for: "work", seconds: 60) {
            try await coordinator.tick()
            let answer = try await service.post("/v1/checkins", token: tokens[client])
            guard answer.status == 201, case .object(let fields) = try JSONValue(parsing: answer.bytes) else {
                clock.advance(by: 0.5)
                return false
            }
            found = fields["assignment"]
            return found != nil
        }
        return try Assignment.read(try #require(found), modelByteLimit: 1 << 20)
    }

    /// What a device of this test uploads.
    struct Masked {
        var bytes: [UInt8]
        var integers: [Int64]
        var seed: Data
    }

    /// Masks values as a device does, which believes the document because it computes what it says.
    func mask(
        _ values: [Float],
        for assignment: Assignment,
        pseudonym: [UInt8],
        session changed: Bool = false
    ) throws -> Masked {
        let protection = try #require(assignment.protection)
        var document = try SessionDocument(parsing: protection.document)
        try SessionGrant.verify(Data(protection.grant), of: document, by: helper.helper.publicKey)
        let instructions = try assignment.instructionsHash()
        #expect(document.instructions == instructions)
        #expect(document.model.hexadecimal == assignment.model.sha256.text)
        #expect(document.run == assignment.run.text && document.domain == "keyboards")
        let grid = try Self.grid(assignment, document)
        #expect(grid.differences(in: document).isEmpty, "\(grid.differences(in: document))")
        let integers = try grid.encode(values)
        let seed = Data((0..<32).map { _ in UInt8.random(in: 0...255) })
        // Sealed for another session, it does not open.
        if changed { document.expires += 1 }
        let entry = SeedList.Entry(
            pseudonym: pseudonym,
            sealed: try .seal(seed, for: document, pseudonym: pseudonym)
        )
        let stream = try MaskStream(seed: seed)
        let words =
            switch document.width {
            case .bits16: try Masking.mask(integers, as: UInt16.self, with: stream)
            case .bits32: try Masking.mask(integers, as: UInt32.self, with: stream)
            case .bits64: try Masking.mask(integers, as: UInt64.self, with: stream)
            }
        return Masked(
            bytes: try MaskedUpdateFile(of: document).bytes(entry, words: words),
            integers: integers,
            seed: seed
        )
    }

    static func grid(_ assignment: Assignment, _ document: SessionDocument) throws -> ProtectionGrid {
        let terms: ProtectionGrid.Terms =
            assignment.privacy.mode == .none
            ? .plain(valueBound: try #require(assignment.valueBound), norm: nil)
            : .gaussian(
                clippingNorm: assignment.privacy.clipping.norm,
                noiseMultiplier: assignment.privacy.noiseMultiplier,
                scale: nil
            )
        return try ProtectionGrid(
            terms,
            width: document.width,
            coordinateCount: assignment.tensors.parameterCount,
            maximum: document.maximum
        )
    }

    static func pseudonym(_ client: Int) -> [UInt8] { Array(SHA256.hash(data: Data("pseudonym \(client)".utf8))) }

    /// Sends a masked update.
    func send(_ bytes: [UInt8], _ assignment: Assignment, of client: Int) async throws -> Service.Answer {
        try await service.call(
            "PUT",
            assignment.updatePath.text,
            token: tokens[client],
            bytes,
            ["Content-Type": MaskedUpdateFile.mediaType]
        )
    }

    /// The values of one client.
    static func values(_ client: Int) -> [Float] { (0..<4).map { Float((client * 5 + $0 * 3) % 7) * 0.01 - 0.02 } }

    /// Plays a client's part.
    @discardableResult
    func play(_ client: Int, session changed: Bool = false) async throws -> Masked {
        let assignment = try await assignment(client)
        let masked = try mask(
            Self.values(client),
            for: assignment,
            pseudonym: Self.pseudonym(client),
            session: changed
        )
        let answer = try await send(masked.bytes, assignment, of: client)
        #expect(answer.status == 200 || answer.status == 201, "\(answer.json)")
        return masked
    }

    /// Lets time pass until something holds.
    func tick(
        until what: String,
        step seconds: Double = 1,
        _ condition: (RunView) async throws -> Bool
    ) async throws {
        try await wait(for: what, seconds: 60) {
            if try await condition(coordinator.run(run)) { return true }
            clock.advance(by: seconds)
            try await coordinator.tick()
            return try await condition(coordinator.run(run))
        }
    }

    func model() async throws -> [Float] { try await Bench.model(coordinator, run) }

    func rounds() async throws -> [RoundView] { try await coordinator.rounds(run: run).items }
}

/// A transport into routes that may be replaced, as those of a helper that is started again.
private final class SwitchingTransport: Transport {
    let router: Mutex<Router>

    init(_ router: Router) { self.router = Mutex(router) }

    func send(_ request: TransportRequest) async throws -> TransportResponse {
        try await RouterTransport(router: router.withLock { $0 }).send(request)
    }
}
