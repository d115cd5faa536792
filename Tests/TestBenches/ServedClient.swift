import CoordinatorAPI
import Foundation
package import HTTPServing
package import LocalTraining
import Logging
package import MartletClient
import TestSupport
import Testing

extension Service {
    /// A client of the SDK with the trainer, of population `p`, and the server that it speaks to over a socket.
    ///
    /// Its state lies in `client` of the service's directory.
    package func servedClient(_ trainer: any LocalTrainer) async throws -> (client: FederatedClient, server: HTTPServer)
    {
        let enrollment = try await post("/v1/populations/p/enrollment-tokens", #"{"max_uses": 9}"#)
        let configuration = ServerConfiguration(host: "127.0.0.1", port: 0)
        let server = HTTPServer(configuration: configuration, router: router, logger: Logger(label: "test"))
        let port = try await server.start()
        let state = directory.path + "/client"
        let client = FederatedClient(
            server: "http://127.0.0.1:\(port)",
            enrollmentToken: try #require(enrollment.json["token"] as? String),
            state: try ClientState(directory: state),
            trainer: trainer,
            transport: CurlTransport(),
            models: try ModelCache(directory: state + "/models"),
            arithmetic: ArithmeticQueue(width: 1)
        )
        return (client, server)
    }
}
