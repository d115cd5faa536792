import Coordination
import CoordinatorAPI
import Crypto
import Foundation
import HTTPServing
import HTTPTypes
import Logging
import MartletClient
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

#if canImport(Glibc)
import Glibc
#endif

/// The SDK's resumable upload against the server, over sockets that break.
@Suite(.timeLimit(.minutes(10)))
struct ResumableClientTests {
    private static let layout = ParameterLayout([.init(name: "w", shape: [700_000])])

    private func update(in directory: TemporaryDirectory) throws -> (path: String, sha256: Data) {
        var generator = Xoshiro256StarStar(seed: 3)
        let values = (0..<Self.layout.parameterCount).map { _ in Float.random(in: -1...1, using: &generator) }
        let update = ParameterVector(layout: Self.layout, values: values)
        let bytes = SafetensorsWriter.encode(update, metadata: Service.base(Self.layout))
        let path = directory.path + "/update.safetensors"
        try bytes.write(to: URL(fileURLWithPath: path))
        return (path, Data(SHA256.hash(data: bytes)))
    }

    private func upload(_ url: String, _ token: String, _ file: (path: String, sha256: Data)) -> ResumableUpload {
        let assignment = url.split(separator: "/").dropLast().last.map(String.init) ?? ""
        return ResumableUpload(
            url: url,
            headers: ["Authorization": "Bearer \(token)"],
            path: file.path,
            expected: ExpectedReceipt(assignment: assignment, sha256: file.sha256.base64EncodedString()),
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
        let (server, port) = try await service.serve(breaking: .reading, after: breaks)
        let patient = RetryPolicy(attemptLimit: 8, sleep: { _ in }, uniform: { 0 })
        let answer = try await upload("http://127.0.0.1:\(port)\(url)", token, file)
            .send(over: CurlTransport(), retry: patient)
        #expect(answer.state.is(.accepted))
        let round = try await service.call("GET", "/v1/runs/\(run)/rounds/1", token: service.admin).json
        #expect(round["accepted"] as? Int == 1)
        // A client that lost the answer asks, and gets the receipt without sending the update again.
        var again = upload("http://127.0.0.1:\(port)\(url)", token, file)
        again.isRepeated = true
        let before = service.coordinator.metrics.value("martlet_http_received_bytes_total") ?? 0
        #expect(try await again.send(over: CurlTransport(), retry: retry) == answer)
        #expect(service.coordinator.metrics.value("martlet_http_received_bytes_total") == before)
        await server.shutdown(gracePeriod: .seconds(5))
    }

    @Test func anUploadGoesOnWithARestartedServer() async throws {
        let service = try await Service()
        let (_, token, assignment) = try await service.assigned(layout: Self.layout)
        let url = try #require(assignment["update_url"] as? String)
        let id = try #require(assignment["id"] as? String)
        let file = try update(in: service.directory)
        let (server, port) = try await service.serve(breaking: .reading, after: [1_500_000])
        let once = RetryPolicy(attemptLimit: 1, sleep: { _ in }, uniform: { 0 })
        await #expect(throws: ClientError.self) {
            try await upload("http://127.0.0.1:\(port)\(url)", token, file).send(over: CurlTransport(), retry: once)
        }
        await server.shutdown(gracePeriod: .seconds(5))
        let path = service.directory.path + "/spool/\(id).partial"
        // The space that was reserved for the rest is given back, by a request that may outlive its connection.
        var status = stat()
        try await wait(for: "the space of what did not come") {
            stat(path, &status) == 0 && Int(status.st_blocks) * 512 < Int(status.st_size) + 200_000
        }
        let arrived = Int(status.st_size)
        #expect((1_400_000..<1_500_000).contains(arrived))
        let restarted = try await service.restarted()
        let (second, newPort) = try await restarted.serve(breaking: .reading, after: [])
        var rest = upload("http://127.0.0.1:\(newPort)\(url)", token, file)
        rest.isRepeated = true
        #expect(try await rest.send(over: CurlTransport(), retry: retry).state.is(.accepted))
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
        let (server, port) = try await service.serve(breaking: .reading, after: [])
        var upload = upload("http://127.0.0.1:\(port)\(url)", token, file)
        upload.isRepeated = true
        #expect(try await upload.send(over: CurlTransport(), retry: retry).state.is(.accepted))
        await server.shutdown(gracePeriod: .seconds(5))
    }

    @Test func refusalsAreNotRepeatedAndOldServersGetOneRequest() async throws {
        let service = try await Service()
        let (_, token, _) = try await service.assigned(layout: Self.layout)
        let file = try update(in: service.directory)
        let (server, port) = try await service.serve(breaking: .reading, after: [])
        let unknown = await #expect(throws: ClientError.self) {
            try await upload("http://127.0.0.1:\(port)/v1/assignments/asg_x/update", token, file)
                .send(over: CurlTransport(), retry: retry)
        }
        #expect(unknown?.status == 404 && unknown?.code == "not_found")
        await server.shutdown(gracePeriod: .seconds(5))
        var router = Router { error, _ in ServerResponse(status: (error as? ParseFailure)?.status ?? 500) }
        router.add("PUT", "/asg_old/update") { request in
            var count = 0
            while let block = try await request.body.read() { count += block.count }
            let sha256 = file.sha256.map { String(format: "%02x", $0) }.joined()
            let receipt = UpdateReceipt(assignment: "asg_old", state: .accepted, sha256: sha256, bytes: count)
            return ServerResponse(status: 200, body: .bytes(Array(try WireCoding.encode(receipt))))
        }
        let configuration = ServerConfiguration(host: "127.0.0.1", port: 0)
        let old = HTTPServer(configuration: configuration, router: router, logger: Logger(label: "test"))
        let answer = try await upload("http://127.0.0.1:\(try await old.start())/asg_old/update", token, file)
            .send(over: CurlTransport(), retry: retry)
        let size = try #require(try FileManager.default.attributesOfItem(atPath: file.path)[.size] as? Int)
        #expect(answer.byteCount == size)
        await old.shutdown(gracePeriod: .seconds(5))
    }

    // MARK: - Lengths that are not what was announced

    /// Sends bytes on a connection of its own, says that nothing follows, and reads until the server hangs up.
    private func exchange(_ bytes: [UInt8], port: Int) async throws -> String {
        try await withCheckedThrowingContinuation { continuation in
            // A blocking socket on a thread of its own, so that no cooperative thread waits.
            Thread { continuation.resume(with: Result { try Self.blocking(bytes, port: port) }) }.start()
        }
    }

    private static func blocking(_ bytes: [UInt8], port: Int) throws -> String {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        let connected = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        try #require(connected == 0)
        var sent = 0
        while sent < bytes.count {
            let count = bytes[sent...].withUnsafeBytes {
                send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { break }
            sent += count
        }
        shutdown(descriptor, Int32(SHUT_WR))
        var received: [UInt8] = []
        var block = [UInt8](repeating: 0, count: 4096)
        while case let count = recv(descriptor, &block, block.count, 0), count > 0 { received += block[..<count] }
        return String(decoding: received, as: UTF8.self)
    }

    @Test(arguments: ["PUT", "PATCH"])
    func moreOrFewerBytesThanAnnouncedLeaveNothingWrongBehind(_ method: String) async throws {
        let service = try await Service()
        let (run, token, assignment) = try await service.assigned()
        let url = try #require(assignment["update_url"] as? String)
        let body = Service.update([1, 2, 3, 4])
        let (server, port) = try await service.serve(breaking: .reading, after: [])
        func head(_ count: Int, offset: Int = 0) -> [UInt8] {
            let part = method == "PATCH" ? "Upload-Offset: \(offset)\r\nUpload-Complete: ?1\r\n" : ""
            return Array(
                "\(method) \(url) HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \(token)\r\n\(part)Content-Length: \(count)\r\n\r\n"
                    .utf8
            )
        }
        // Fewer: no answer counts, and only a resumable upload keeps what came.
        _ = try await exchange(head(body.count + 7) + body, port: port)
        let spool = service.directory.path + "/spool"
        let id = try #require(assignment["id"] as? String)
        let partial = method == "PATCH" ? [id + ".partial"] : []
        // The handler ends after the connection does.
        try await wait(for: "the handler to clear the spool") {
            try FileManager.default.contentsOfDirectory(atPath: spool) == partial
        }
        let round = try await service.call("GET", "/v1/runs/\(run)/rounds/1", token: service.admin).json
        #expect(round["accepted"] as? Int == 0 && round["rejected"] as? Int == 0)
        // More: the announced bytes are the update; what follows is another request, and no good one.
        let start = method == "PATCH" ? body.count : 0
        let rest = Array(body[start...])
        let text = try await exchange(
            head(rest.count, offset: start) + rest + Array("nonsense\r\n\r\n".utf8),
            port: port
        )
        #expect(text.hasPrefix("HTTP/1.1 200") && text.contains("HTTP/1.1 400"), "\(text)")
        #expect(try FileManager.default.contentsOfDirectory(atPath: spool) == [id + ".update"])
        #expect(try Data(contentsOf: URL(fileURLWithPath: spool + "/\(id).update")) == Data(body))
        await server.shutdown(gracePeriod: .seconds(5))
    }
}
