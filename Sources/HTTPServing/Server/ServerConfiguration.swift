import Foundation

/// The server's limits; every wait has an end and every buffer a size.
package struct ServerConfiguration: Sendable {
    package var host: String
    package var port: Int
    /// Bytes of request line and header fields.
    package var headByteLimit = 16 << 10
    package var headerFieldLimit = 100
    /// From the first byte of a head to its last.
    package var headTimeout: Duration = .seconds(10)
    /// Between two reads of a body, and two writes of an answer.
    package var transferTimeout: Duration = .seconds(30)
    /// Between two requests of one connection.
    package var idleTimeout: Duration = .seconds(60)
    /// From a connection's beginning to the first byte of its first request, a TLS handshake included.
    package var firstByteTimeout: Duration = .seconds(20)
    /// After the first `transferTimeout`, bodies and files must move at least this fast.
    package var leastBytesPerSecond = 1024
    package var connectionLimit = 8192
    /// Connections of one address (IPv6: of one /64).
    package var connectionsPerAddressLimit = 4096
    /// Addresses, such as a proxy's, without a limit of their own.
    package var unlimitedPeers: NetworkList?
    /// Unread body bytes that are read and thrown away to keep the connection.
    package var drainByteLimit = 64 << 10
    /// How long the rest of a refused body is read and thrown away, so that a client that sends all before it reads finds the answer: a
    /// connection that is closed with bytes unread is reset, and the answer may be lost with it.
    package var lingerTimeout: Duration = .seconds(5)

    /// Event loops, each with a share of the connections.
    package var loopCount = ProcessInfo.processInfo.activeProcessorCount
    /// Makes the channel of an accepted, non-blocking socket; `nil` refuses the connection.
    package var makeChannel: @Sendable (_ descriptor: Int32) -> (any ByteChannel)? = { SocketChannel(descriptor: $0) }

    /// Is told what happens outside of requests.
    package var events = ServerEvents()

    package init(host: String, port: Int) {
        self.host = host
        self.port = port
    }
}

/// What happens to connections, for those who count and log.
package struct ServerEvents: Sendable {
    /// A connection was opened (1) or closed (-1).
    package var connections: @Sendable (Int) -> Void = { _ in }
    /// A connection was turned away, or ended to make room: `limit`, `address` or `shed`; or some wait, because there are no
    /// more file descriptors: `files`, without an address.
    package var refused: @Sendable (_ reason: String, _ address: String) -> Void = { _, _ in }
    /// A request could not be understood.
    package var malformed: @Sendable (MalformedRequest) -> Void = { _ in }
    /// A peer was too slow.
    package var timedOut: @Sendable (_ wait: String, _ address: String) -> Void = { _, _ in }

    package init() {}
}

/// A request that never reached a route, and how it was answered.
package struct MalformedRequest: Sendable {
    package var status: Int
    /// The code of the answer's problem document, where it has one.
    package var code: String?
    package var detail: String
    package var address: String
    package var requestID: String
}
