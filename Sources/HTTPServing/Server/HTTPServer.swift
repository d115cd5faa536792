import Dispatch
import Foundation
package import Logging

#if canImport(Glibc)
import Glibc
#endif

/// Why the server could not listen.
package struct ListenError: Error, CustomStringConvertible {
    package var description: String
}

/// Accepts connections and serves each on its own queue.
package actor HTTPServer {
    private let configuration: ServerConfiguration
    private let router: Router
    private let logger: Logger
    private let queue = DispatchQueue(label: "martlet.accept")
    private var listener: (any DispatchSourceRead)?
    private var sweeper: (any DispatchSourceTimer)?
    private var connections: [ObjectIdentifier: HTTPConnection] = [:]

    package init(configuration: ServerConfiguration, router: Router, logger: Logger) {
        self.configuration = configuration
        self.router = router
        self.logger = logger
    }

    /// Starts listening.
    ///
    /// - Returns: The port, which the system chose where the configuration says 0.
    package func start() throws -> Int {
        let (descriptor, port) = try Self.listen(host: configuration.host, port: configuration.port)
        let source = DispatchSource.makeReadSource(fileDescriptor: descriptor, queue: queue)
        source.setEventHandler { [weak self] in
            for socket in Self.acceptPending(descriptor) {
                guard let self else {
                    close(socket)
                    continue
                }
                Task { await self.serve(socket) }
            }
        }
        source.setCancelHandler { close(descriptor) }
        source.resume()
        listener = source
        let timer = DispatchSource.makeTimerSource(queue: queue)
        timer.schedule(deadline: .now() + 0.25, repeating: 0.25)
        timer.setEventHandler { [weak self] in
            guard let self else { return }
            Task { await self.sweep() }
        }
        timer.resume()
        sweeper = timer
        return port
    }

    /// Stops accepting, lets requests in progress finish, and ends what is left after the grace period.
    package func shutdown(gracePeriod: Duration) async {
        listener?.cancel()
        listener = nil
        for connection in connections.values { await connection.stop(force: false) }
        let end = ContinuousClock.now + gracePeriod
        while !connections.isEmpty && ContinuousClock.now < end {
            try? await Task.sleep(for: .milliseconds(20))
        }
        for connection in connections.values { await connection.stop(force: true) }
        sweeper?.cancel()
        sweeper = nil
    }

    private func serve(_ socket: Int32) async {
        guard connections.count < configuration.connectionLimit, listener != nil else {
            close(socket)
            return
        }
        let connection = HTTPConnection(
            descriptor: socket,
            remoteAddress: SocketAddress.ofPeer(socket),
            configuration: configuration,
            router: router,
            onClose: { [weak self] id in Task { await self?.forget(id) } }
        )
        connections[ObjectIdentifier(connection)] = connection
        Task { await connection.serve() }
    }

    private func forget(_ id: ObjectIdentifier) {
        connections[id] = nil
    }

    private func sweep() async {
        let now = ContinuousClock.now
        for connection in connections.values { await connection.sweep(now: now) }
    }

    /// Takes up to 64 connections that wait.
    private static func acceptPending(_ descriptor: Int32) -> [Int32] {
        var sockets: [Int32] = []
        while sockets.count < 64 {
            let socket = accept(descriptor, nil, nil)
            guard socket >= 0 else {
                // Out of descriptors: leave the rest in the backlog for a moment instead of spinning.
                if errno == EMFILE || errno == ENFILE { usleep(20_000) }
                break
            }
            _ = fcntl(socket, F_SETFL, fcntl(socket, F_GETFL) | O_NONBLOCK)
            _ = fcntl(socket, F_SETFD, FD_CLOEXEC)
            var on: Int32 = 1
            setsockopt(socket, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size))
            sockets.append(socket)
        }
        return sockets
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
