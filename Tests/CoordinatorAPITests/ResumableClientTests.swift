import Coordination
import CoordinatorAPI
import Crypto
import Foundation
import HTTPServing
import HTTPTypes
import Logging
import MartletClient
import Synchronization
import Tensors
import TestSupport
import Testing

/// Plain TCP that breaks after so many bytes have been read from it.
private final class BreakingChannel: ByteChannel {
    private let socket: SocketChannel
    private var left: Int
    var descriptor: Int32 { socket.descriptor }

    init(descriptor: Int32, after byteCount: Int) {
        socket = SocketChannel(descriptor: descriptor)
        left = byteCount
    }

    func read(into space: UnsafeMutableRawBufferPointer) -> ChannelResult {
        guard left > 0 else { return .failed(0) }
        let result = socket.read(into: UnsafeMutableRawBufferPointer(rebasing: space[..<min(left, space.count)]))
        if case .moved(let count) = result { left -= count }
        return result
    }

    func write(_ bytes: UnsafeRawBufferPointer, moreFollows: Bool) -> ChannelResult {
        socket.write(bytes, moreFollows: moreFollows)
    }

    func finishWriting() { socket.finishWriting() }
    func close() { socket.close() }
}

/// The SDK's resumable upload against the server, over sockets that break.
@Suite(.timeLimit(.minutes(1)))
struct ResumableClientTests {
    private static let layout = ParameterLayout([.init(name: "w", shape: [700_000])])

    /// Serves a service's routes; the n-th connection breaks after `breaks[n]` bytes, those after the last one never.
    private func serve(_ service: Service, breaks: [Int], port: Int = 0) async throws -> (server: HTTPServer, port: Int)
    {
        var configuration = ServerConfiguration(host: "127.0.0.1", port: port)
        let remaining = Mutex(breaks)
        configuration.makeChannel = { descriptor in
            let next = remaining.withLock { $0.isEmpty ? nil : $0.removeFirst() }
            return next.map { BreakingChannel(descriptor: descriptor, after: $0) }
                ?? SocketChannel(descriptor: descriptor)
        }
        let server = HTTPServer(configuration: configuration, router: service.router, logger: Logger(label: "test"))
        return (server, try await server.start())
    }

    private func update(in directory: TemporaryDirectory) throws -> (path: String, sha256: Data) {
        var generator = Xoshiro256StarStar(seed: 3)
        let values = (0..<Self.layout.parameterCount).map { _ in Float.random(in: -1...1, using: &generator) }
        let bytes = SafetensorsWriter.encode(ParameterVector(layout: Self.layout, values: values))
        let path = directory.path + "/update.safetensors"
        try bytes.write(to: URL(fileURLWithPath: path))
        return (path, Data(SHA256.hash(data: bytes)))
    }

    private func upload(_ url: String, _ token: String, _ file: (path: String, sha256: Data)) -> ResumableUpload {
        ResumableUpload(
            url: url,
            headers: ["Authorization": "Bearer \(token)"],
            path: file.path,
            sha256: file.sha256.base64EncodedString(),
            isRepeated: false
        )
    }

    /// Two tries in a row without progress are too many: whatever was cut must have counted.
    private let retry = RetryPolicy(attemptLimit: 3, sleep: { _ in }, uniform: { 0 })

    @Test func anUploadOverConnectionsThatBreakArrivesOnce() async throws {
        let service = try await Service()
        let (run, token, assignment) = try await service.assigned(layout: Self.layout)
        let url = try #require(assignment["update_url"] as? String)
        let file = try update(in: service.directory)
        // Each break costs a connection; the question after it, or the next part, takes the one after.
        var generator = Xoshiro256StarStar(seed: 17)
        var breaks = [0, 20, 300, 900]
        for _ in 0..<12 { breaks.append(Int.random(in: 600...900_000, using: &generator)) }
        let (server, port) = try await serve(service, breaks: breaks)
        let patient = RetryPolicy(attemptLimit: 8, sleep: { _ in }, uniform: { 0 })
        let answer = try await upload("http://127.0.0.1:\(port)\(url)", token, file)
            .send(over: CurlTransport(), retry: patient)
        #expect(answer.status == 200, "\(String(decoding: answer.body, as: UTF8.self))")
        let round = try await service.call("GET", "/v1/runs/\(run)/rounds/1", token: service.admin).json
        #expect(round["accepted"] as? Int == 1)
        // A client that lost the answer asks, and gets the receipt without sending the update again.
        var again = upload("http://127.0.0.1:\(port)\(url)", token, file)
        again.isRepeated = true
        let before = service.coordinator.metrics.value("martlet_http_received_bytes_total") ?? 0
        #expect(try await again.send(over: CurlTransport(), retry: retry).status == 200)
        #expect(service.coordinator.metrics.value("martlet_http_received_bytes_total") == before)
        await server.shutdown(gracePeriod: .seconds(5))
    }

    @Test func anUploadGoesOnWithARestartedServer() async throws {
        let service = try await Service()
        let (_, token, assignment) = try await service.assigned(layout: Self.layout)
        let url = try #require(assignment["update_url"] as? String)
        let id = try #require(assignment["id"] as? String)
        let file = try update(in: service.directory)
        let (server, port) = try await serve(service, breaks: [1_500_000])
        let once = RetryPolicy(attemptLimit: 1, sleep: { _ in }, uniform: { 0 })
        let address = "http://127.0.0.1:\(port)\(url)"
        await #expect(throws: ClientError.self) {
            try await upload(address, token, file).send(over: CurlTransport(), retry: once)
        }
        await server.shutdown(gracePeriod: .seconds(5))
        let path = service.directory.path + "/spool/\(id).partial"
        let arrived = try #require(try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int)
        #expect((1_400_000..<1_500_000).contains(arrived))
        let restarted = try await service.restarted()
        let (second, _) = try await serve(restarted, breaks: [], port: port)
        var rest = upload(address, token, file)
        rest.isRepeated = true
        #expect(try await rest.send(over: CurlTransport(), retry: retry).status == 200)
        // Only the rest was sent.
        let size = try #require(try FileManager.default.attributesOfItem(atPath: file.path)[.size] as? Int)
        #expect(restarted.coordinator.metrics.value("martlet_http_received_bytes_total") == Double(size - arrived))
        await second.shutdown(gracePeriod: .seconds(5))
    }

    @Test func whatAnotherUploadLeftIsReplaced() async throws {
        let service = try await Service()
        let (_, token, assignment) = try await service.assigned(layout: Self.layout)
        let url = try #require(assignment["update_url"] as? String)
        let file = try update(in: service.directory)
        _ = try await service.call("PATCH", url, token: token, [1, 2, 3], ["Upload-Offset": "0"])
        let (server, port) = try await serve(service, breaks: [])
        var upload = upload("http://127.0.0.1:\(port)\(url)", token, file)
        upload.isRepeated = true
        #expect(try await upload.send(over: CurlTransport(), retry: retry).status == 200)
        await server.shutdown(gracePeriod: .seconds(5))
    }

    @Test func refusalsAreNotRepeatedAndOldServersGetOneRequest() async throws {
        let service = try await Service()
        let (_, token, _) = try await service.assigned(layout: Self.layout)
        let file = try update(in: service.directory)
        let (server, port) = try await serve(service, breaks: [])
        let unknown = try await upload("http://127.0.0.1:\(port)/v1/assignments/asg_x/update", token, file)
            .send(over: CurlTransport(), retry: retry)
        #expect(unknown.status == 404)
        await server.shutdown(gracePeriod: .seconds(5))
        var router = Router { error, _ in ServerResponse(status: (error as? ParseFailure)?.status ?? 500) }
        router.add("PUT", "/old") { request in
            var count = 0
            while let block = try await request.body.read() { count += block.count }
            return ServerResponse(status: 200, body: .bytes(Array("\(count)".utf8)))
        }
        let configuration = ServerConfiguration(host: "127.0.0.1", port: 0)
        let old = HTTPServer(configuration: configuration, router: router, logger: Logger(label: "test"))
        let answer = try await upload("http://127.0.0.1:\(try await old.start())/old", token, file)
            .send(over: CurlTransport(), retry: retry)
        let size = try #require(try FileManager.default.attributesOfItem(atPath: file.path)[.size] as? Int)
        #expect(answer.status == 200 && String(decoding: answer.body, as: UTF8.self) == "\(size)")
        await old.shutdown(gracePeriod: .seconds(5))
    }
}
