/// An app's transport, held to the one rule that the client cannot do without: no answer is an error with code `network`.
///
/// Whatever else it throws, such as an error of `URLSession` or of a system call, would be taken for one of this device's files or
/// end the client.
package struct CheckedTransport: Transport {
    private let transport: any Transport

    package init(_ transport: any Transport) { self.transport = transport }

    package func send(_ request: TransportRequest) async throws -> TransportResponse {
        do { return try await transport.send(request) } catch {
            if error is ClientError || error is CancellationError { throw error }
            if Task.isCancelled { throw CancellationError() }
            throw ClientError(
                code: ClientError.network,
                message: "no answer from \(request.url): \(ErrorWords.of(error))"
            )
        }
    }
}
