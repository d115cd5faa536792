import Coordination
import CoordinatorAPI
import Crypto
import Foundation
import HTTPServing
import HTTPTypes
import LocalTraining
import MartletClient
import Tensors
import TestBenches
import TestSupport
import Testing

/// The SDK's resumable download against the server, over sockets that break.
@Suite(.timeLimit(.minutes(10)))
struct ResumableDownloadTests {
    private static let layout = ParameterLayout([.init(name: "w", shape: [700_000])])

    /// A service with a model that clients may fetch from `target`, and the bytes and hash of what they get.
    private func published(
        _ query: String = ""
    ) async throws -> (service: Service, run: String, target: String, whole: [UInt8], hash: String) {
        let service = try await Service()
        let (run, _, _) = try await service.assigned(layout: Self.layout)
        let target = "/v1/runs/\(run)/models/0/weights\(query)"
        let whole = try await service.call("GET", target, token: service.admin).bytes
        let hash = SHA256.hash(data: whole).map { String(format: "%02x", $0) }.joined()
        return (service, run, target, Array(whole), hash)
    }

    private func sent(_ service: Service) -> Double {
        service.coordinator.metrics.value("martlet_http_sent_bytes_total") ?? 0
    }

    private func sha256(_ path: String) throws -> String {
        SHA256.hash(data: try Data(contentsOf: URL(fileURLWithPath: path))).map { String(format: "%02x", $0) }.joined()
    }

    @Test(arguments: ["", "?encoding=f16"])
    func aDownloadOverConnectionsThatBreakGoesOnWhereItStopped(_ query: String) async throws {
        let (service, _, target, whole, hash) = try await published(query)
        // The first break is in the answer's head; the others are in its body.
        let (server, port) = try await service.serve(breaking: .writing, after: [100, 200_000, 500_000, 300_000])
        let path = service.directory.path + "/model.part"
        let download = ResumableDownload(
            url: "http://127.0.0.1:\(port)\(target)",
            headers: ["Authorization": "Bearer \(service.admin)"],
            path: path
        )
        // Two tries in a row without progress are too many: whatever was cut must have counted.
        let retry = RetryPolicy(attemptLimit: 3, sleep: { _ in }, uniform: { 0 })
        #expect(try await download.send(over: CurlTransport(), retry: retry) == hash)
        #expect(try sha256(path) == hash)
        // Complete, it is not sent again; its hash is told all the same.
        let before = sent(service)
        #expect(try await download.send(over: CurlTransport(), retry: retry) == hash)
        #expect(sent(service) == before)
        // More than there is cannot be its beginning.
        try (Data(whole) + [1]).write(to: URL(fileURLWithPath: path))
        #expect(try await download.send(over: CurlTransport(), retry: retry) == hash)
        #expect(try sha256(path) == hash)
        await server.shutdown(gracePeriod: .seconds(5))
    }

    /// What one process has left is the beginning for the next, unless it is something else: the hash decides.
    @Test func aHeadThatIsCutAtAnyByteIsNoAnswer() async throws {
        let service = try await Service()
        let cuts = Array(1...100)
        let (server, port) = try await service.serve(breaking: .writing, after: cuts)
        let transport = CurlTransport()
        let request = TransportRequest(method: "GET", url: "http://127.0.0.1:\(port)/healthz")
        for cut in cuts {
            let error = await #expect(throws: ClientError.self, "cut after \(cut) bytes") {
                try await transport.send(request)
            }
            #expect(error?.code == "network" && error?.isTemporary == true)
        }
        #expect(try await transport.send(request).status == 200)
        await server.shutdown(gracePeriod: .seconds(5))
    }

    @Test(arguments: [true, false])
    func theNextProcessGoesOnWithWhatIsThere(_ isDamaged: Bool) async throws {
        let (service, run, _, whole, hash) = try await published()
        let (server, port) = try await service.serve(breaking: .writing, after: [])
        let enrollment = try #require(
            try await service.post("/v1/populations/p/enrollment-tokens", #"{"max_uses": 1}"#).json["token"] as? String
        )
        let directory = service.directory.path + "/models"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        var beginning = Array(whole[..<2_000_000])
        if isDamaged { beginning[1_000_000] ^= 1 }
        let partial = directory + "/\(hash).safetensors.part"
        try Data(beginning).write(to: URL(fileURLWithPath: partial))
        let models = try ModelCache(directory: directory)
        let client = FederatedClient(
            server: "http://127.0.0.1:\(port)",
            enrollmentToken: enrollment,
            state: try ClientState(directory: service.directory.path + "/client"),
            trainer: ZeroTrainer(),
            transport: CurlTransport(),
            models: models,
            arithmetic: ArithmeticQueue(width: 1)
        )
        #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: run, round: 1))
        #expect(await models.bytesDown == whole.count - (isDamaged ? 0 : beginning.count))
        let kept = try FileManager.default.contentsOfDirectory(atPath: directory)
        #expect(kept == ["\(hash).safetensors"])
        await server.shutdown(gracePeriod: .seconds(5))
    }
}

private struct ZeroTrainer: LocalTrainer {
    func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
        TrainingResult(delta: model, exampleCount: 1)
    }
}
