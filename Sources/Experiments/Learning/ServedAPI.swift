import BenchmarkHarness
import Foundation
import MartletClient

/// The API of a served process, as its administrator calls it from many tasks.
struct ServedAPI: Sendable {
    let url: String
    let token: String
    let transport = CurlTransport()

    func waitUntilCompleted(_ run: String) async throws {
        while true {
            let view = try await call("GET", "/v1/runs/\(run)")
            switch view["state"] as? String {
            case "completed": return
            case "failed": throw BenchmarkError("the run failed: \(view["reason"] ?? "")")
            default: try await Task.sleep(for: .milliseconds(200))
            }
        }
    }

    func request(_ method: String, _ path: String) -> TransportRequest {
        TransportRequest(
            method: method,
            url: url + path,
            headers: ["Authorization": "Bearer \(token)"]
        )
    }

    @discardableResult
    func call(_ method: String, _ path: String, _ body: Data? = nil) async throws -> [String: Any] {
        var request = request(method, path)
        if let body {
            request.headers["Content-Type"] = "application/json"
            request.body = .bytes(body)
        }
        let response = try await RetryPolicy().send(request, over: transport)
        guard (200..<300).contains(response.status) else {
            throw BenchmarkError("\(method) \(path): \(String(decoding: response.body, as: UTF8.self))")
        }
        return (try? JSONSerialization.jsonObject(with: response.body)) as? [String: Any] ?? [:]
    }
}
