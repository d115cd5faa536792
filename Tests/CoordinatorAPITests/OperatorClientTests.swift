import Foundation
import MartletOperator
import TestSupport
import Testing

/// The operator's client against the real routes.
@Suite(.timeLimit(.minutes(1)))
struct OperatorClientTests {
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
}
