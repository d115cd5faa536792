import Dispatch
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

/// Accepts connections and distributes them over event loops, one for each core.
package actor HTTPServer {
    private let configuration: ServerConfiguration
    private let router: Router
    private let logger: Logger
    private var loops: [EventLoop] = []
    private let table: ConnectionTable

    package init(configuration: ServerConfiguration, router: Router, logger: Logger) {
        self.configuration = configuration
        self.router = router
        self.logger = logger
        table = ConnectionTable(
            limit: configuration.connectionLimit,
            partyLimit: configuration.connectionsPerAddressLimit
        )
    }

    /// Starts listening.
    ///
    /// - Returns: The port; the system chooses it if the configuration says 0.
    /// - Throws: ``ListenError``.
    package func start() throws -> Int {
        let loops = try (0..<max(1, configuration.loopCount)).map { try EventLoop(index: $0) }
        let (descriptor, port) = try Self.listen(host: configuration.host, port: configuration.port)
        self.loops = loops
        for loop in loops { loop.start() }
        let acceptor = Acceptor(loops: loops, table: table, configuration: configuration, router: router)
        loops[0].submit { [first = loops[0], events = configuration.events] in
            first.listen(descriptor, accept: { acceptor.take($0) }, exhausted: { events.refused("files", "") })
        }
        return port
    }

    /// Stops accepting, lets requests in progress finish, and ends the remaining connections after the grace period.
    package func shutdown(gracePeriod: Duration) async {
        for loop in loops {
            loop.submit {
                loop.stopListening()
                loop.forEachConnection { $0.stop(force: false) }
            }
        }
        let end = ContinuousClock.now + gracePeriod
        while table.count > 0 && ContinuousClock.now < end {
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
            let advice =
                switch errno {
                case EADDRINUSE: "; another program listens there: stop it, or choose another port (0 finds a free one)"
                case EACCES: "; ports below 1024 are for the superuser: choose a higher one"
                case EADDRNOTAVAIL: "; this machine has no such address"
                default: ""
                }
            let problem = ListenError(description: "cannot listen on \(host):\(port): \(reason())\(advice)")
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

/// Distributes new connections over the loops.
private final class Acceptor: @unchecked Sendable {
    // SAFETY: `take` and with it `turn` run on the first loop's queue only; `begin` runs on the connection's loop and reads constants.
    private let loops: [EventLoop]
    private let table: ConnectionTable
    private let configuration: ServerConfiguration
    private let router: Router
    private var turn = 0

    init(loops: [EventLoop], table: ConnectionTable, configuration: ServerConfiguration, router: Router) {
        self.loops = loops
        self.table = table
        self.configuration = configuration
        self.router = router
    }

    func take(_ socket: Int32) {
        dispatchPrecondition(condition: .onQueue(loops[0].queue))
        let address = SocketAddress.ofPeer(socket)
        let parsed = NetworkAddress(address)
        let party = parsed?.party ?? address
        let isUnlimited = parsed.map { configuration.unlimitedPeers?.contains($0) ?? false } ?? false
        switch table.admit(party, isUnlimited: isUnlimited) {
        case .refused(let reason):
            configuration.events.refused(reason, address)
            close(socket)
            return
        case .admittedInPlaceOf(let other):
            configuration.events.refused("shed", other.remoteAddress)
            other.loop.submit { other.stop(force: false) }
        case .admitted: break
        }
        turn += 1
        let loop = loops[turn % loops.count]
        configuration.events.connections(1)
        loop.submit { [self] in begin(socket, on: loop, address, party) }
    }

    private func begin(_ socket: Int32, on loop: EventLoop, _ address: String, _ party: String) {
        dispatchPrecondition(condition: .onQueue(loop.queue))
        let (table, events) = (table, configuration.events)
        guard let channel = configuration.makeChannel(socket) else {
            close(socket)
            table.remove(nil, party)
            return events.connections(-1)
        }
        let connection = HTTPConnection(
            channel: channel,
            remoteAddress: address,
            loop: loop,
            configuration: configuration,
            router: router,
            onEnd: { connection in
                table.remove(connection, party)
                events.connections(-1)
            }
        )
        table.attach(connection, party)
        loop.add(connection)
        connection.advance()
    }
}
