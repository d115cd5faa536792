import Foundation

/// The server's address and limits: every wait has a timeout and every buffer a size.
package struct ServerConfiguration: Sendable {
    package var host: String
    package var port: Int
    /// Bytes of request line and header fields.
    package var headByteLimit = 16 << 10
    package var headerFieldLimit = 100
    /// The time from the first byte of a head to its last.
    package var headTimeout: Duration = .seconds(10)
    /// The time between two reads of a body, and between two writes of an answer.
    package var transferTimeout: Duration = .seconds(30)
    /// The time between two requests of one connection.
    package var idleTimeout: Duration = .seconds(60)
    /// The time from a connection's beginning to the first byte of its first request, including a TLS handshake.
    package var firstByteTimeout: Duration = .seconds(20)
    /// After the first `transferTimeout`, bodies and files must move at least this fast.
    package var leastBytesPerSecond = 1024
    /// Bytes of answers that may wait for slow readers in one event loop; beyond that the slowest reader loses its connection.
    ///
    /// A file waits on the disk and counts for nothing.
    package var heldByteLimit = 64 << 20
    package var connectionLimit = 8192
    /// Connections of one address (IPv6: of one /64).
    package var connectionsPerAddressLimit = 4096
    /// Addresses without the limit for one address, such as a proxy's.
    package var unlimitedPeers: NetworkList?
    /// The largest body, in bytes, that is read and thrown away to keep the connection.
    package var drainByteLimit = 64 << 10
    /// How long the rest of a refused body is read and thrown away.
    ///
    /// A connection that is closed with unread bytes is reset, and a client that sends everything before it reads would lose the answer.
    package var lingerTimeout: Duration = .seconds(5)

    /// The number of event loops.
    package var loopCount = ProcessInfo.processInfo.activeProcessorCount
    /// Makes the channel of an accepted, non-blocking socket; `nil` refuses the connection.
    package var makeChannel: @Sendable (_ descriptor: Int32) -> (any ByteChannel)? = { SocketChannel(descriptor: $0) }

    /// Called for what happens outside of requests.
    package var events = ServerEvents()

    package init(host: String, port: Int) {
        self.host = host
        self.port = port
    }
}

/// Callbacks about connections, for metrics and logs.
package struct ServerEvents: Sendable {
    /// A connection was opened (1) or closed (-1).
    package var connections: @Sendable (Int) -> Void = { _ in }
    /// A connection was refused (`limit`, `address`) or ended to make room (`shed`), or connections wait because no file descriptor is
    /// free (`files`, without an address).
    package var refused: @Sendable (_ reason: String, _ address: String) -> Void = { _, _ in }
    /// A request could not be parsed.
    package var malformed: @Sendable (MalformedRequest) -> Void = { _ in }
    /// A peer was too slow.
    package var timedOut: @Sendable (_ wait: String, _ address: String) -> Void = { _, _ in }

    package init() {}
}

/// A request that never reached a route, and how it was answered.
package struct MalformedRequest: Sendable {
    package var status: Int
    /// The code of the answer's problem document; `nil` if it has none.
    package var code: String?
    package var detail: String
    package var address: String
    package var requestID: String
}
