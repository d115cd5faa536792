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
    package var connectionLimit = 8192
    /// Unread body bytes that are read and thrown away to keep the connection.
    package var drainByteLimit = 64 << 10

    /// Event loops, each with a share of the connections.
    package var loopCount = ProcessInfo.processInfo.activeProcessorCount
    /// Makes the channel of an accepted, non-blocking socket; `nil` refuses the connection.
    package var makeChannel: @Sendable (_ descriptor: Int32) -> (any ByteChannel)? = { SocketChannel(descriptor: $0) }

    package init(host: String, port: Int) {
        self.host = host
        self.port = port
    }
}
