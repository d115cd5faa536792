import HTTPServing
import Logging
import Synchronization
import TestBenches

/// Plain TCP that breaks after so many bytes have gone in one direction.
final class BreakingChannel: ByteChannel {
    enum Direction: Sendable {
        /// What the server reads.
        case reading
        /// What the server writes.
        case writing
    }

    private let socket: SocketChannel
    private let direction: Direction
    private var left: Int
    var descriptor: Int32 { socket.descriptor }

    init(descriptor: Int32, _ direction: Direction, after byteCount: Int) {
        socket = SocketChannel(descriptor: descriptor)
        self.direction = direction
        left = byteCount
    }

    func read(into space: UnsafeMutableRawBufferPointer) -> ChannelResult {
        counted(.reading, space.count) { socket.read(into: UnsafeMutableRawBufferPointer(rebasing: space[..<$0])) }
    }

    func write(_ bytes: UnsafeRawBufferPointer, moreFollows: Bool) -> ChannelResult {
        counted(.writing, bytes.count) {
            socket.write(UnsafeRawBufferPointer(rebasing: bytes[..<$0]), moreFollows: moreFollows)
        }
    }

    private func counted(_ own: Direction, _ count: Int, _ move: (_ count: Int) -> ChannelResult) -> ChannelResult {
        guard own == direction else { return move(count) }
        guard left > 0 else { return .failed(0) }
        let result = move(min(left, count))
        if case .moved(let moved) = result { left -= moved }
        return result
    }

    func finishWriting() { socket.finishWriting() }
    func close() { socket.close() }
}

extension Service {
    /// Serves the routes; the n-th connection breaks after `breaks[n]` bytes in a direction, those after the last one never.
    func serve(
        breaking direction: BreakingChannel.Direction,
        after breaks: [Int]
    ) async throws -> (server: HTTPServer, port: Int) {
        var configuration = ServerConfiguration(host: "127.0.0.1", port: 0)
        let remaining = Mutex(breaks)
        configuration.makeChannel = { descriptor in
            let next = remaining.withLock { $0.isEmpty ? nil : $0.removeFirst() }
            return next.map { BreakingChannel(descriptor: descriptor, direction, after: $0) }
                ?? SocketChannel(descriptor: descriptor)
        }
        let server = HTTPServer(configuration: configuration, router: router, logger: Logger(label: "test"))
        return (server, try await server.start())
    }
}
