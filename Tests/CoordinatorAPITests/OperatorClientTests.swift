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

    /// A list of more than a page comes whole.
    @Test func listsAreReadToTheirEnd() async throws {
        let service = try await Service()
        let client = try client(service)
        for index in 0..<5 { try await client.createPopulation("p\(index)") }
        let two = Endpoints.populations().with("limit", 2)
        #expect(try await client.items(of: two).map(\.name) == (0..<5).map { "p\($0)" })
    }
}
