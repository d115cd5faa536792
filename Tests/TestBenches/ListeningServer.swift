import Foundation
import HTTPServing
import HTTPTypes
import Logging
import MartletTransport

/// A server of routes on a free port of this machine, which ends with its last use.
final class ListeningServer: Sendable {
    private let server: HTTPServer
    private let url: String

    init(_ router: Router) async throws {
        let configuration = ServerConfiguration(host: "127.0.0.1", port: 0)
        server = HTTPServer(configuration: configuration, router: router, logger: Logger(label: "test"))
        url = "http://127.0.0.1:\(try await server.start())"
    }

    deinit {
        let server = server
        Task { await server.shutdown(gracePeriod: .zero) }
    }

    /// Sends one request over a connection, and takes its answer whole.
    func send(
        _ method: String,
        _ target: String,
        _ headers: HTTPFields,
        _ body: any RequestBody
    ) async throws -> Service.Answer {
        var bytes: [UInt8] = []
        while let block = try await body.read() { bytes += block }
        var request = TransportRequest(method: method, url: url + target)
        for field in headers { request.headers[field.name.rawName] = field.value }
        if !bytes.isEmpty { request.body = .bytes(Data(bytes)) }
        let response = try await CurlTransport().send(request)
        var fields: HTTPFields = [:]
        for (name, value) in response.headers {
            if let name = HTTPField.Name(name) { fields[name] = value }
        }
        return Service.Answer(status: response.status, headers: fields, bytes: Array(response.body))
    }
}
