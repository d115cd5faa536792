import Foundation

#if canImport(Glibc)
import Glibc
#endif

/// The result of one attempt to move bytes.
package enum ChannelResult: Equatable, Sendable {
    /// This many bytes were moved, at least 1.
    case moved(Int)
    /// Nothing can move before the descriptor is ready for this.
    case blocked(Readiness)
    /// The peer has finished sending.
    case ended
    /// The connection is broken: the value of `errno`, or 0 for another reason.
    case failed(Int32)

    /// What to wait for.
    package enum Readiness: Sendable { case readable, writable }
}

/// Moves bytes of one connection without waiting: ``SocketChannel`` for plain TCP, ``TLSChannel`` for TLS.
///
/// A connection uses its channel from one thread at a time. After `blocked` the connection repeats the call, with the same or more
/// bytes, when the descriptor has become ready.
package protocol ByteChannel: AnyObject {
    /// The non-blocking socket, watched edge-triggered for both directions.
    var descriptor: Int32 { get }
    /// Whether a read of fewer bytes than there was space for means that the next one would be `blocked`.
    var shortReadMeansDrained: Bool { get }
    /// The hash of the peer's verified public key, `sha256//BASE64`; `nil` if the peer showed no certificate.
    var peerKey: String? { get }
    /// Reads the bytes that are there, at most as many as fit.
    func read(into space: UnsafeMutableRawBufferPointer) -> ChannelResult
    /// Writes from the front of `bytes`; `moreFollows` lets the channel hold back a part of a packet.
    func write(_ bytes: UnsafeRawBufferPointer, moreFollows: Bool) -> ChannelResult
    /// Sends part of a file.
    func sendFile(_ file: Int32, offset: Int, count: Int) -> ChannelResult
    /// Tells the peer that nothing more will be sent.
    func finishWriting()
    /// Closes the descriptor; nothing is called afterwards.
    func close()
}

extension ByteChannel {
    package var shortReadMeansDrained: Bool { false }
    package var peerKey: String? { nil }

    /// Reads a block of the file and writes it, for channels that must see the bytes.
    package func sendFile(_ file: Int32, offset: Int, count: Int) -> ChannelResult {
        withUnsafeTemporaryAllocation(byteCount: min(count, 1 << 16), alignment: 16) { space in
            let available = pread(file, space.baseAddress, space.count, off_t(offset))
            guard available > 0 else { return .failed(available < 0 ? errno : EIO) }
            return write(UnsafeRawBufferPointer(rebasing: space[0..<available]), moreFollows: false)
        }
    }
}

/// Plain TCP.
package final class SocketChannel: ByteChannel {
    package let descriptor: Int32
    package var shortReadMeansDrained: Bool { true }

    /// Takes over a connected, non-blocking socket.
    package init(descriptor: Int32) {
        self.descriptor = descriptor
    }

    package func read(into space: UnsafeMutableRawBufferPointer) -> ChannelResult {
        while true {
            let count = recv(descriptor, space.baseAddress, space.count, Int32(MSG_DONTWAIT))
            if count > 0 { return .moved(count) }
            if count == 0 { return .ended }
            if errno == EAGAIN { return .blocked(.readable) }
            if errno != EINTR { return .failed(errno) }
        }
    }

    package func write(_ bytes: UnsafeRawBufferPointer, moreFollows: Bool) -> ChannelResult {
        let flags = Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT) | (moreFollows ? Int32(MSG_MORE) : 0)
        while true {
            let count = send(descriptor, bytes.baseAddress, bytes.count, flags)
            if count >= 0 { return .moved(count) }
            if errno == EAGAIN { return .blocked(.writable) }
            if errno != EINTR { return .failed(errno) }
        }
    }

    package func sendFile(_ file: Int32, offset: Int, count: Int) -> ChannelResult {
        var position = off_t(offset)
        while true {
            let sent = sendfile(descriptor, file, &position, count)
            if sent > 0 { return .moved(sent) }
            // Nothing sent and no error: the file is shorter than it was.
            if sent == 0 { return .failed(EIO) }
            if errno == EAGAIN { return .blocked(.writable) }
            if errno != EINTR { return .failed(errno) }
        }
    }

    package func finishWriting() { shutdown(descriptor, Int32(SHUT_WR)) }

    package func close() { Glibc.close(descriptor) }
}
