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

/// Everything that a client of the SDK sends, as it goes out.
private final class RecordingTransport: Transport {
    private let curl = CurlTransport()
    private let sent = Mutex<[Data]>([])

    var bodies: [Data] { sent.withLock { $0 } }

    func send(_ request: TransportRequest) async throws -> TransportResponse {
        let body: Data =
            switch request.body {
            case .none: Data()
            case .bytes(let data): data
            case .file(let path, _): try Data(contentsOf: URL(fileURLWithPath: path))
            }
        let head = request.url + request.headers.map { "\($0.key): \($0.value)" }.joined(separator: "\n")
        sent.withLock { $0.append(Data(head.utf8) + body) }
        return try await curl.send(request)
    }
}

/// What cleaning finds is for the device's owner: neither counts by rule nor texts are in anything that is sent.
@Suite(.timeLimit(.minutes(10)))
struct DataReportTests {
    @Test func whatCleaningFindsStaysOnTheDevice() async throws {
        let sizes = CIFGLSTMConfiguration(vocabularySize: 52, embeddingDimension: 4, hiddenDimension: 8)
        let service = try await Service(makeInitialModel: { _ in sizes.initialParameters(seed: 1) })
        _ = try await service.post("/v1/populations", #"{"name": "p"}"#)
        let created = try await service.post(
            "/v1/runs",
            RunFile.sample {
                $0.cohort += ["goal": 1, "over_selection": 1]
                $0.model.architecture = "cifg-lstm"
                $0.model.config += ["vocab_size": 52, "embedding_dim": 4, "hidden_dim": 8]
                $0.training.local.learning_rate = 0.1
            }.text
        )
        let run = try #require(created.json["id"] as? String, "\(created.json)")
        #expect(try await service.post("/v1/runs/\(run)/start").status == 200)
        let server = HTTPServer(
            configuration: ServerConfiguration(host: "127.0.0.1", port: 0),
            router: service.router,
            logger: Logger(label: "test")
        )
        let port = try await server.start()
        let enrollment = try await service.post("/v1/populations/p/enrollment-tokens", #"{"max_uses": 1}"#)
        let reports = Mutex<[DataReport]>([])
        let texts = [
            "Write to ann.zebra@example.com before the quagmire opens.",
            "The quagmire opens on Monday at noon, she said.",
            "The quagmire opens on Monday at noon, she said.",
        ]
        let transport = RecordingTransport()
        let state = service.directory.path + "/client"
        let client = FederatedClient(
            server: "http://127.0.0.1:\(port)",
            enrollmentToken: try #require(enrollment.json["token"] as? String),
            state: try ClientState(directory: state),
            trainer: DeviceTrainer(data: .texts(texts)) { report in reports.withLock { $0.append(report) } },
            transport: transport,
            models: try ModelCache(directory: state + "/models")
        )
        #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: run, round: 1))
        await server.shutdown(gracePeriod: .seconds(5))
        // The owner sees it.
        let report = try #require(reports.withLock { $0.first })
        #expect(report.recordsRead == 3 && report.records == 2)
        #expect(report.rules["email"] == 1 && report.rules["duplicate"] == 1, "\(report.rules)")
        // Nobody else does: neither the words, nor how many records there were of which kind.
        let bodies = transport.bodies
        #expect(bodies.contains { $0.count > 1000 }, "the update itself was recorded")
        for body in bodies {
            let text = String(decoding: body, as: UTF8.self)
            for word in ["quagmire", "zebra", "email", "duplicate", "records_read", "median_length", "scripts"] {
                #expect(!text.contains(word), "'\(word)' left the device")
            }
        }
    }
}
