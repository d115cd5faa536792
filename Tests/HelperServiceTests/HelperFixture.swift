import Coordination
import Crypto
import DifferentialPrivacy
import Foundation
import GRDB
import HelperService
import Logging
import SecureAggregation
import Synchronization
import Tensors
import TestSupport
import WireFormat

/// A helper of a directory, with one domain and one server, and devices that mask for it.
final class HelperFixture {
    static let server = ServerCaller(domain: "keyboards", server: "srv_1")

    let directory: String
    let clock: TestClock
    /// How the next transactions fail, and what is done while they do.
    let faults = Faults()
    let configuration: HelperConfiguration
    var helper: Helper
    private let kept: TemporaryDirectory

    /// Makes a domain with a budget, or without one and without noise.
    init(
        epsilon: Double? = nil,
        policy: HelperPolicy? = nil,
        changing change: (inout HelperConfiguration) -> Void = { _ in }
    ) async throws {
        let clock = TestClock()
        self.clock = clock
        kept = try TemporaryDirectory()
        directory = kept.path + "/helper"
        var configuration = HelperConfiguration(dataDirectory: directory)
        configuration.now = { clock.now }
        configuration.storeFault = { [faults] in faults.next() }
        change(&configuration)
        self.configuration = configuration
        helper = try await Self.open(configuration)
        _ = try await helper.createDomain(
            HelperDomainRequest(
                name: Self.server.domain,
                budget: epsilon.map { HelperBudget(epsilon: $0, delta: 1e-5) },
                policy: policy ?? HelperPolicy(minimum: 2, maximum: 100, leastNoise: epsilon == nil ? 0 : 0.5)
            )
        )
    }

    private static func open(_ configuration: HelperConfiguration) async throws -> Helper {
        try await Helper(
            configuration: configuration,
            logger: Logger(label: "t", factory: { _ in SwiftLogNoOpLogHandler() })
        )
    }

    /// Starts again on what is in the directory.
    func restart() async throws { helper = try await Self.open(configuration) }

    /// A request without noise, or with Σ* and K of a noise multiplier.
    func request(
        run: String = "run_1",
        round: Int = 1,
        attempt: Int = 1,
        purpose: HelperPurpose = .training,
        bits: Int = 32,
        coordinates: Int = 5,
        noiseMultiplier z: Double? = nil
    ) -> HelperSessionRequest {
        let norm = z.map { Int(IntegerGaussianSampler.standardDeviation / $0) } ?? 1000
        return HelperSessionRequest(
            purpose: purpose,
            run: run,
            round: round,
            attempt: attempt,
            model: String(repeating: "a", count: 64),
            instructions: String(repeating: "b", count: 64),
            bits: bits,
            coordinates: coordinates,
            step: 0.5,
            coordinateBound: 1000,
            norm: norm,
            noise: z == nil ? .none : .gaussian,
            noiseDeviation: z == nil ? 0 : IntegerGaussianSampler.standardDeviation,
            measure: .l2,
            minimum: 2,
            maximum: 100,
            maxParticipations: 3
        )
    }

    func grant(_ request: HelperSessionRequest) async throws -> HelperSessionView {
        try await helper.createSession(request, by: Self.server).session
    }

    /// The file of a session's private key.
    func keyPath(_ session: HelperSessionView) -> String { directory + "/keys/\(session.session).key" }

    /// The states of all sessions as the database has them, and the names of the sums that it keeps.
    func stored() throws -> (states: [String: String], sums: Set<String>) {
        try DatabaseQueue(path: directory + "/helper.sqlite").read { database in
            var (states, sums): ([String: String], Set<String>) = ([:], [])
            for row in try Row.fetchAll(database, sql: "SELECT id, state, sum_file FROM session") {
                let (id, state, file): (String, String, String?) = (row["id"], row["state"], row["sum_file"])
                states[id] = state
                if state == "summed", let file { sums.insert(file) }
            }
            return (states, sums)
        }
    }

    func names(_ part: String) throws -> Set<String> {
        Set(try FileManager.default.contentsOfDirectory(atPath: directory + "/" + part))
    }

    /// Whether the files of keys and sums are those that the database wants, and no others.
    func filesAreThoseOfTheDatabase() throws -> Bool {
        let stored = try stored()
        let keys = Set(stored.states.filter { $0.value == "granted" }.map { $0.key + ".key" })
        return try names("keys") == keys && names("sums") == stored.sums
    }

    func domain() async throws -> HelperDomainView { try await helper.domainView(Self.server.domain) }

    /// Every byte of every file of the directory.
    func everyFile() throws -> [(name: String, bytes: Data)] {
        try FileManager.default.subpathsOfDirectory(atPath: directory).sorted().compactMap { name in
            FileManager.default.contents(atPath: directory + "/" + name).map { (name, $0) }
        }
    }
}

/// How transactions of a test fail.
final class Faults: Sendable {
    private struct State {
        var faults: [StoreFault?] = []
        var whileFailing: (@Sendable () -> Void)?
    }

    private let state = Mutex(State())

    /// - Parameters:
    ///   - faults: Of the next transactions, one after the other; `nil` lets one pass.
    ///   - whileFailing: Called before the first of them.
    func fail(_ faults: StoreFault?..., whileFailing: (@Sendable () -> Void)? = nil) {
        state.withLock { $0 = State(faults: faults, whileFailing: whileFailing) }
    }

    func next() -> StoreFault? {
        let (fault, body) = state.withLock { state in
            guard !state.faults.isEmpty else { return (StoreFault?.none, (@Sendable () -> Void)?.none) }
            let body = state.whileFailing
            state.whileFailing = nil
            return (state.faults.removeFirst(), body)
        }
        body?()
        return fault
    }

    /// Whether all of them have come.
    var isOver: Bool { state.withLock { $0.faults.isEmpty } }
}

/// A device of a test: what it masks and seals.
struct Device {
    let pseudonym: [UInt8]
    let seed: Data
    let entry: SeedList.Entry
    let masked: [UInt8]

    init(_ index: Int, _ document: SessionDocument, _ values: [Int64], salt: String = "") throws {
        pseudonym = Array(SHA256.hash(data: Data("device \(index)".utf8)))
        seed = Data(SHA256.hash(data: Data("seed \(index) \(salt)".utf8)))
        entry = .init(pseudonym: pseudonym, sealed: try .seal(seed, for: document, pseudonym: pseudonym))
        masked = try Masking.mask(values, as: UInt32.self, with: try MaskStream(seed: seed))
    }
}

extension HelperSessionView {
    /// The document that was granted.
    var parsed: SessionDocument {
        get throws { try SessionDocument(parsing: Array(Data(base64Encoded: document) ?? Data())) }
    }
}

/// Devices of a session, each with its own values.
func devices(_ count: Int, of session: HelperSessionView, from first: Int = 0, salt: String = "") throws -> [Device] {
    let document = try session.parsed
    return try (first..<first + count).map { index in
        let values = (0..<Int(document.coordinateCount)).map { Int64((index * 7 + $0 * 3) % 19 - 9) }
        return try Device(index, document, values, salt: salt)
    }
}

func list(_ devices: [Device]) throws -> [UInt8] { try SeedList(devices.map(\.entry)).bytes }

/// What the server finds: Σ y − M.
func unmasked(_ devices: [Device], _ sum: SumFile) throws -> [Int64] {
    let helper = try Data(contentsOf: URL(fileURLWithPath: sum.path))
    var words = [UInt32](repeating: 0, count: helper.count / 4)
    for device in devices { try device.masked.withUnsafeBytes { try Unmasking.add($0, to: &words) } }
    return try helper.withUnsafeBytes { try Unmasking.finish(words, helper: $0) }
}

/// The code with which a call is refused; `nil` where it is not.
func code(_ body: () async throws -> Void) async -> String? {
    do {
        try await body()
        return nil
    } catch let error as CoordinationError {
        return error.code
    } catch let error as SecureAggregationError {
        return error.code.rawValue
    } catch {
        return "\(error)"
    }
}
