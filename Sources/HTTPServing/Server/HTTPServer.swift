import Foundation
package import Logging
import Synchronization

#if canImport(Glibc)
import Glibc
#endif

/// Why the server could not listen.
package struct ListenError: Error, CustomStringConvertible {
    package var description: String
}

/// Accepts connections and shares them out among event loops, one for each core.
package actor HTTPServer {
    private let configuration: ServerConfiguration
    private let router: Router
    private let logger: Logger
    private var loops: [EventLoop] = []
    private let counter = ConnectionCounter()

    package init(configuration: ServerConfiguration, router: Router, logger: Logger) {
        self.configuration = configuration
        self.router = router
        self.logger = logger
    }

    /// Starts listening.
    ///
    /// - Returns: The port, which the system chose where the configuration says 0.
    package func start() throws -> Int {
        let loops = try (0..<max(1, configuration.loopCount)).map { try EventLoop(index: $0) }
        let (descriptor, port) = try Self.listen(host: configuration.host, port: configuration.port)
        self.loops = loops
        let (configuration, router, counter) = (configuration, router, counter)
        for loop in loops { loop.start() }
        loops[0].submit { [first = loops[0]] in
            var turn = 0
            first.listen(descriptor) { socket in
                guard counter.add(limit: configuration.connectionLimit) else {
                    close(socket)
                    return
                }
                turn += 1
                let loop = loops[turn % loops.count]
                loop.submit {
                    guard let channel = configuration.makeChannel(socket) else {
                        close(socket)
                        return counter.remove()
                    }
                    let connection = HTTPConnection(
                        channel: channel,
                        remoteAddress: SocketAddress.ofPeer(socket),
                        loop: loop,
                        configuration: configuration,
                        router: router,
                        onEnd: { counter.remove() }
                    )
                    loop.add(connection)
                    connection.advance()
                }
            }
        }
        return port
    }

    /// Stops accepting, lets requests in progress finish, and ends what is left after the grace period.
    package func shutdown(gracePeriod: Duration) async {
        for loop in loops {
            loop.submit {
                loop.stopListening()
                loop.forEachConnection { $0.stop(force: false) }
            }
        }
        let end = ContinuousClock.now + gracePeriod
        while counter.count > 0 && ContinuousClock.now < end {
            try? await Task.sleep(for: .milliseconds(5))
        }
        for loop in loops {
            loop.submit { loop.forEachConnection { $0.stop(force: true) } }
            loop.stop()
        }
        loops = []
    }

    private static func listen(host: String, port: Int) throws -> (Int32, Int) {
        var hints = addrinfo()
        hints.ai_family = AF_UNSPEC
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV
        var found: UnsafeMutablePointer<addrinfo>?
        let status = getaddrinfo(host, String(port), &hints, &found)
        guard status == 0, let address = found else {
            throw ListenError(
                description: "cannot resolve the address \(host): \(String(cString: gai_strerror(status)))"
            )
        }
        defer { freeaddrinfo(found) }
        let info = address.pointee
        let descriptor = socket(
            info.ai_family,
            info.ai_socktype | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue),
            0
        )
        guard descriptor >= 0 else { throw ListenError(description: "cannot make a socket: \(reason())") }
        var on: Int32 = 1
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout<Int32>.size))
        guard bind(descriptor, info.ai_addr, info.ai_addrlen) == 0, Glibc.listen(descriptor, 1024) == 0 else {
            let problem = ListenError(description: "cannot listen on \(host):\(port): \(reason())")
            close(descriptor)
            throw problem
        }
        var bound = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let actual = withUnsafeMutableBytes(of: &bound) { raw -> Int in
            guard let base = raw.baseAddress else { return port }
            getsockname(descriptor, base.assumingMemoryBound(to: sockaddr.self), &length)
            // The port is the second 16-bit word of both address families, in network order.
            return Int(UInt16(bigEndian: raw.load(fromByteOffset: 2, as: UInt16.self)))
        }
        return (descriptor, actual)
    }

    private static func reason() -> String { String(cString: strerror(errno)) }
}

/// How many connections there are.
private final class ConnectionCounter: Sendable {
    private let value = Atomic(0)

    var count: Int { value.load(ordering: .relaxed) }

    func add(limit: Int) -> Bool {
        guard value.add(1, ordering: .relaxed).newValue > limit else { return true }
        remove()
        return false
    }

    func remove() { value.subtract(1, ordering: .relaxed) }
}
