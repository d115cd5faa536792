import MartletClient
import MartletTransport

/// Repeats requests that found no server, as a client does: an experiment of hours outlives a server that is busy.
struct RetryingTransport: Transport {
    let transport: any Transport

    init(_ transport: any Transport) { self.transport = transport }

    func send(_ request: TransportRequest) async throws -> TransportResponse {
        try await RetryPolicy().send(request, over: transport)
    }
}
