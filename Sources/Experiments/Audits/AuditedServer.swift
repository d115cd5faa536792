import BenchmarkHarness
import Foundation
import Synchronization
import Tensors
import WireFormat

/// A server as users run it, that an auditor talks to.
final class AuditedServer: Sendable {
    let token: String
    let port: Int
    // SAFETY: a process that nothing is asked of between its start and its end.
    private nonisolated(unsafe) let process: ServedProcess

    init(directory: String) throws {
        process = try ServedProcess(dataDirectory: directory, arguments: ["--log-level", "error"])
        token = process.adminToken
        guard let port = process.url.split(separator: ":").last.flatMap({ Int($0) }) else {
            throw BenchmarkError("the server's address is \(process.url)")
        }
        self.port = port
    }

    /// Ends the server, so that its directory can go.
    func stop() { process.stop() }

    /// Runs the body on so many connections at the same time.
    func together(_ count: Int, _ body: @escaping @Sendable (Int, LoopbackConnection) throws -> Void) throws {
        _ = try Connections.together(count, port: port, body)
    }
}

/// A run of a population of its own, whose clients send what an auditor wants.
struct AuditedRun: Sendable {
    private let id: String
    private let population: String
    private let administrator: String
    /// A token for each client.
    let clients: [String]

    init(
        _ connection: LoopbackConnection,
        administrator: String,
        clientCount: Int,
        dimension: Int,
        specification: String
    ) throws {
        let population = "audit-" + UUID().uuidString.prefix(8).lowercased()
        func text(_ answer: [String: Any], _ key: String) throws -> String {
            guard let value = answer[key] as? String else { throw BenchmarkError("an answer has no \(key)") }
            return value
        }
        _ = try connection.json(
            Endpoints.createPopulation(),
            token: administrator,
            #"{"name": "\#(population)", "budget": {"epsilon": 1000, "delta": 1e-5}}"#
        )
        let enrollment = try connection.json(
            Endpoints.createEnrollmentToken(PopulationReference(population)),
            token: administrator,
            #"{"max_uses": \#(clientCount)}"#
        )
        let enrollmentToken = try text(enrollment, "token")
        clients = try (0..<clientCount).map { _ in
            try text(try connection.json(Endpoints.register(), token: enrollmentToken), "token")
        }
        let document =
            #"{"population": "\#(population)", "model": {"architecture": "external"}, \#(specification)}"#
        id = try text(try connection.json(Endpoints.createRun(), token: administrator, document), "id")
        self.population = population
        self.administrator = administrator
        _ = try connection.exchange(
            Endpoints.putModel(RunReference(id)),
            token: administrator,
            contentType: Self.updateType,
            body: Self.file([Float](repeating: 0, count: dimension))
        )
        _ = try connection.json(Endpoints.startRun(RunReference(id)), token: administrator)
    }

    /// Where an update goes, and the hash of the model that it starts from.
    struct Work: Sendable {
        var path: String
        var base: String
        var byteCount: Int
    }

    /// Waits for a client's part in the open round.
    func assignment(_ client: String, _ connection: LoopbackConnection) throws -> Work {
        for _ in 0..<60 {
            let answer = try connection.json(Endpoints.checkIn(), token: client, wait: 10)
            guard let assignment = answer["assignment"] as? [String: Any] else { continue }
            let base = (assignment["model"] as? [String: Any])?["sha256"] as? String
            if let path = assignment["update_url"] as? String, let byteCount = assignment["update_bytes"] as? Int,
                let base
            {
                return Work(path: path, base: base, byteCount: byteCount)
            }
        }
        throw BenchmarkError("a client got no assignment")
    }

    func send(_ update: [Float], to work: Work, _ client: String, _ connection: LoopbackConnection) throws {
        let body = SafetensorsWriter.padded(Self.file(update, metadata: ["base": work.base]), to: work.byteCount)
        _ = try connection.exchange("PUT", work.path, token: client, contentType: Self.updateType, body: body)
    }

    /// A version's values, as soon as it is published.
    func version(_ number: Int, _ connection: LoopbackConnection) throws -> [Float] {
        for _ in 0..<30_000 {
            do {
                let body = try connection.exchange(
                    Endpoints.weights(RunReference(id), VersionReference(number)),
                    token: administrator
                )
                return try Self.values(body)
            } catch let error as BenchmarkError where error.description.contains("answered 404") {
                usleep(2000)
            }
        }
        throw BenchmarkError("version \(number) was not published")
    }

    func spentEpsilon(_ connection: LoopbackConnection) throws -> Double {
        let view = try connection.json(Endpoints.population(PopulationReference(population)), token: administrator)
        return (view["budget"] as? [String: Any])?["spent_epsilon"] as? Double ?? .nan
    }

    // MARK: -

    private static let updateType = "application/vnd.safetensors"

    private static func file(_ values: [Float], metadata: [String: String] = [:]) -> Data {
        SafetensorsWriter.encode(
            ParameterVector(layout: ParameterLayout([.init(name: "w", shape: [values.count])]), values: values),
            metadata: metadata
        )
    }

    /// The values of a file with the one tensor `w` in F32.
    private static func values(_ file: Data) throws -> [Float] {
        let path = NSTemporaryDirectory() + "martlet-version-\(UUID().uuidString)"
        try file.write(to: URL(fileURLWithPath: path))
        defer { unlink(path) }
        return try SafetensorsFile(path: path).readAll().values
    }
}

/// What each lane of a parallel piece of work came to.
final class ResultsByLane<Value: Sendable>: Sendable {
    private let values: Mutex<[Value?]>

    init(count: Int) { values = Mutex(Array(repeating: nil, count: count)) }

    func set(_ lane: Int, _ value: Value) { values.withLock { $0[lane] = value } }

    /// In the order of the lanes.
    var all: [Value] { values.withLock { $0.compactMap { $0 } } }
}
