import CoordinatorAPI
import HTTPServing
import HTTPTypes
import Testing

struct RecoveryGateTests {
    private func request(_ path: String) throws -> ServerRequest {
        try ServerRequest(method: "GET", rawTarget: path, headers: [:], body: MemoryBody([]), requestID: "r")
    }

    @Test func everythingButHealthIsToldToComeAgainUntilRecoveryIsDone() async throws {
        let gate = RecoveryGate()
        let router = gate.router
        for path in ["/v1/runs", "/readyz", "/v1/overview", "/v1/assignments/asg_x"] {
            let answer = await router.handle(try request(path))
            #expect(answer.status == 503)
            #expect((1...8).contains(Int(answer.headers[.retryAfter] ?? "") ?? 0))
            guard case .bytes(let bytes) = answer.body else { continue }
            #expect(String(decoding: bytes, as: UTF8.self).contains("\"code\":\"recovering\""))
        }
        #expect(await router.handle(try request("/healthz")).status == 200)
        var health = try request("/healthz")
        #expect(router.handleImmediately(&health)?.status == 200)
        // The pages hold no data: they are there, and say what they are told.
        for path in ["/", "/docs", "/openapi.yaml"] { #expect(await router.handle(try request(path)).status == 200) }
        var real = Router { _, _ in ServerResponse(status: 404) }
        real.add("GET", "/v1/runs") { _ in ServerResponse(status: 200) }
        gate.open(real)
        #expect(await router.handle(try request("/v1/runs")).status == 200)
        #expect(await router.handle(try request("/v1/other")).status == 404)
    }
}
