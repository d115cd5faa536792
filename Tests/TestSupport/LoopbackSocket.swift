import Foundation

#if canImport(Glibc)
import Glibc
#endif

/// A blocking TCP connection to a server on this machine, for tests that send what no HTTP library would.
package final class LoopbackSocket: Sendable {
    private let descriptor: Int32

    /// Connects to a port of 127.0.0.1.
    ///
    /// - Parameters:
    ///   - port: The server's.
    ///   - source: Where the server sees the caller: any address that begins with 127.
    ///   - timeout: The seconds after which waiting for the peer ends: a wait in vain, since no answer takes so long.
    /// - Throws: `POSIXError` where nothing listens there.
    package init(port: Int, from source: String = "127.0.0.1", timeout: Int = 600) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        let size = socklen_t(MemoryLayout<sockaddr_in>.size)
        guard Self.withAddress(source, 0, { bind(descriptor, $0, size) }) == 0,
            Self.withAddress("127.0.0.1", port, { connect(descriptor, $0, size) }) == 0
        else {
            let code = POSIXErrorCode(rawValue: errno) ?? .ECONNREFUSED
            close(descriptor)
            throw POSIXError(code)
        }
        var limit = timeval(tv_sec: timeout, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    }

    /// Takes over a connection that a listener has accepted.
    init(accepted descriptor: Int32) { self.descriptor = descriptor }

    deinit { close(descriptor) }

    private static func withAddress(_ host: String, _ port: Int, _ body: (UnsafePointer<sockaddr>) -> Int32) -> Int32 {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = inet_addr(host)
        return withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0) }
        }
    }

    /// Sends bytes.
    ///
    /// - Returns: Whether the peer took all of them.
    @discardableResult package func write(_ bytes: [UInt8]) -> Bool {
        var sent = 0
        while sent < bytes.count {
            let moved = bytes[sent...].withUnsafeBytes {
                send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            // A machine that has stood still interrupts who waited.
            if moved < 0 && errno == EINTR { continue }
            guard moved > 0 else { return false }
            sent += moved
        }
        return true
    }

    /// Whether the peer ends the connection, rather than leave it open in silence; what it still sends is passed over.
    package func isEndedByPeer() -> Bool {
        var block = [UInt8](repeating: 0, count: 4096)
        while true {
            let moved = recv(descriptor, &block, block.count, 0)
            if moved < 0 && errno == EINTR { continue }
            if moved <= 0 { return moved == 0 || errno == ECONNRESET }
        }
    }

    /// Says that nothing more will be sent; reading goes on.
    package func endWriting() { shutdown(descriptor, Int32(SHUT_WR)) }

    /// What the peer sends until `isEnough`, or until it closes or says nothing for too long.
    package func read(until isEnough: ([UInt8]) -> Bool) -> [UInt8] {
        var received: [UInt8] = []
        var block = [UInt8](repeating: 0, count: 4096)
        while !isEnough(received) {
            let moved = recv(descriptor, &block, block.count, 0)
            if moved < 0 && errno == EINTR { continue }
            guard moved > 0 else { break }
            received += block[0..<moved]
        }
        return received
    }
}
