import Foundation
package import HTTPServing
import HTTPTypes
package import MartletTransport
import Synchronization

/// A transport straight into the routes, without a socket.
package struct RouterTransport: Transport {
    package let router: Router

    package init(router: Router) { self.router = router }

    package func send(_ request: TransportRequest) async throws -> TransportResponse {
        var fields: HTTPFields = [:]
        for (name, value) in request.headers {
            if let name = HTTPField.Name(name) { fields[name] = value }
        }
        let body =
            switch request.body {
            case .none: Data()
            case .bytes(let data): data
            case .file(let path, let offset): try Data(contentsOf: URL(fileURLWithPath: path)).dropFirst(offset)
            }
        let response = await router.handle(
            try ServerRequest(
                method: request.method,
                rawTarget: String(request.url.dropFirst("http://test".count)),
                headers: fields,
                body: MemoryBody(Array(body)),
                requestID: "test"
            )
        )
        let headers = Dictionary(response.headers.map { ($0.name.canonicalName, $0.value) }) { first, _ in first }
        var taken = AnswerBody(request)
        for block in try await blocks(of: response.body) {
            try block.withUnsafeBytes { try taken.take($0, status: response.status, headers: headers) }
        }
        try taken.close()
        return TransportResponse(status: response.status, headers: headers, body: taken.memory)
    }

    private func blocks(of body: ResponseBody) async throws -> [[UInt8]] {
        switch body {
        case .none: return []
        case .bytes(let bytes): return [bytes]
        case .file(let path, let range): return [Array(try Data(contentsOf: URL(fileURLWithPath: path))[range])]
        case .stream(let produce):
            let collected = Mutex<[[UInt8]]>([])
            try await produce { block in collected.withLock { $0.append(block) } }
            return collected.withLock { $0 }
        }
    }
}
