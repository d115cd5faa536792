import Dispatch
import Foundation
import HTTPTypes

#if canImport(Glibc)
import Glibc
#endif

extension HTTPConnection {
    /// Sends an answer; `done` is called on the loop's queue when the system has taken its last byte.
    func send(
        _ response: ServerResponse,
        isHead: Bool,
        keepAlive: Bool,
        inChunks: Bool,
        done: @escaping () -> Void
    ) {
        dispatchPrecondition(condition: .onQueue(loop.queue))
        state = .answering(keepAlive: keepAlive)
        var response = response
        var transfer: FileTransfer?
        if !isHead, case .file(let path, let range) = response.body, !range.isEmpty {
            // The file is opened before the head is sent: after a 200 it is too late to say that it cannot be read.
            transfer = FileTransfer(path, range)
            if transfer == nil { response = Self.unreadable }
        }
        // The loop's buffer is used again for every answer that the system takes at once.
        var bytes = loop.output
        loop.output = []
        bytes.removeAll(keepingCapacity: true)
        writeHead(of: response, keepAlive: keepAlive, inChunks: inChunks, into: &bytes)
        let body: ResponseBody =
            isHead || response.status == 204 || response.status == 304 ? .none : response.body
        if case .bytes(let content) = body { bytes += content }
        let moreFollows = transfer != nil
        let finish: (ConnectionError?) -> Void = { [self] error in
            guard error == nil else { return }
            switch body {
            case .none, .bytes: done()
            case .file:
                guard let transfer else { return done() }
                sendFile(transfer, done: done)
            case .stream(let produce): stream(produce, inChunks: inChunks, done: done)
            }
        }
        write(bytes, moreFollows: moreFollows, then: finish)
        if bytes.capacity <= 1 << 16 { loop.output = bytes }
    }

    private func writeHead(
        of response: ServerResponse,
        keepAlive: Bool,
        inChunks: Bool,
        into bytes: inout [UInt8]
    ) {
        bytes += "HTTP/1.1 ".utf8
        bytes += String(response.status).utf8
        bytes.append(32)
        bytes += response.reasonPhrase.utf8
        for field in response.headers {
            bytes += [13, 10]
            bytes += field.name.rawName.utf8
            bytes += [58, 32]
            bytes += field.value.utf8
        }
        bytes += "\r\nDate: ".utf8
        bytes += loop.date.utf8
        if response.status != 204 && response.status != 304 {
            if let count = response.body.byteCount {
                bytes += "\r\nContent-Length: ".utf8
                bytes += String(count).utf8
            } else if inChunks {
                bytes += "\r\nTransfer-Encoding: chunked".utf8
            }
        }
        bytes += keepAlive ? "\r\n\r\n".utf8 : "\r\nConnection: close\r\n\r\n".utf8
    }

    /// Writes as much as the system takes now; the rest waits in `output`.
    func write(_ bytes: [UInt8], moreFollows: Bool = false, then: @escaping (ConnectionError?) -> Void) {
        dispatchPrecondition(condition: .onQueue(loop.queue))
        var sent = 0
        if output.isEmpty {
            while sent < bytes.count {
                let result = bytes.withUnsafeBytes {
                    channel.write(UnsafeRawBufferPointer(rebasing: $0[sent...]), moreFollows: moreFollows)
                }
                if case .moved(let count) = result {
                    sent += count
                    continue
                }
                guard case .blocked = result else {
                    then(.closedByPeer)
                    return fail(.closedByPeer)
                }
                canWrite = false
                break
            }
            if sent == bytes.count { return then(nil) }
        }
        if output.isEmpty { outputPace = TransferPace(now: loop.now) }
        output += bytes[sent...]
        afterOutput = then
        deadline = outputPace.deadline(now: loop.now, configuration)
        loop.hold(self, output.count, limit: configuration.heldByteLimit)
    }

    /// Sends the bytes that wait in `output`.
    func flushOutput() {
        guard !isLent, !output.isEmpty, canWrite || canRead else { return }
        while outputStart < output.count {
            let result = output.withUnsafeBytes {
                channel.write(UnsafeRawBufferPointer(rebasing: $0[outputStart...]), moreFollows: false)
            }
            switch result {
            case .moved(let count):
                outputStart += count
                outputPace.count += count
                deadline = outputPace.deadline(now: loop.now, configuration)
            case .blocked(let readiness):
                if readiness == .writable { canWrite = false }
                return
            case .ended, .failed: return fail(.closedByPeer)
            }
        }
        output = []
        outputStart = 0
        loop.hold(self, 0)
        deadline = .max
        let after = afterOutput
        afterOutput = nil
        after?(nil)
    }

    // MARK: - Files

    /// The answer in place of a file that cannot be read or is shorter than the range.
    private static let unreadable = ServerResponse(
        status: 503,
        headers: [.contentType: "application/problem+json", .retryAfter: "5"],
        body: .bytes(
            Array(
                (#"{"type":"about:blank","title":"Not available now","status":503,"code":"storage_failed","#
                    + #""detail":"the file cannot be read now; ask again later"}"#).utf8
            )
        )
    )

    /// Sends part of a file: up to 64 KiB at once, more in bursts on a thread, so that a slow disk holds up no other connection.
    private func sendFile(_ transfer: FileTransfer, done: @escaping () -> Void) {
        filePace = TransferPace(now: loop.now)
        if transfer.end - transfer.beginning <= 1 << 16 { transfer.burst(channel) }
        proceed(transfer, done: done)
    }

    private func proceed(_ transfer: FileTransfer, done: @escaping () -> Void) {
        switch transfer.result {
        case .failed, .ended: return fail(.closedByPeer)
        case .moved where transfer.position == transfer.end:
            done()
            return advance()
        case .blocked where !canWrite:
            filePace.count = transfer.position - transfer.beginning
            bulkResume = { [self] error in if error == nil { lend(transfer, done: done) } }
            awaitPeer(filePace)
        default: lend(transfer, done: done)
        }
    }

    private func lend(_ transfer: FileTransfer, done: @escaping () -> Void) {
        isLent = true
        canWrite = false
        let finished = UncheckedClosure(done)
        BulkTransfers.run { [self] in
            transfer.burst(channel)
            loop.submit { [self] in
                isLent = false
                guard !isBroken else { return fail(.closedByPeer) }
                proceed(transfer, done: finished.body)
            }
        }
    }

    // MARK: - Streams

    private func stream(
        _ produce: @escaping @Sendable (@Sendable ([UInt8]) async throws -> Void) async throws -> Void,
        inChunks: Bool,
        done: @escaping () -> Void
    ) {
        let finished = UncheckedClosure(done)
        Task { [self] in
            do {
                try await produce { block in try await self.sendBlock(block, inChunks: inChunks) }
                if inChunks { try await sendBytes(Array("0\r\n\r\n".utf8)) }
                loop.submit { [self] in
                    finished.body()
                    advance()
                }
            } catch {
                // An error in the middle ends the connection without the last chunk, so that the peer notices.
                loop.submit { [self] in fail(.closedByPeer) }
            }
        }
    }

    private func sendBlock(_ block: [UInt8], inChunks: Bool) async throws {
        guard !block.isEmpty else { return }
        guard inChunks else { return try await sendBytes(block) }
        var bytes = Array((String(block.count, radix: 16) + "\r\n").utf8)
        bytes += block
        bytes += [13, 10]
        try await sendBytes(bytes)
    }

    private func sendBytes(_ bytes: [UInt8]) async throws {
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
            loop.submit { [self] in
                guard case .answering = state, !isBroken else {
                    return continuation.resume(throwing: ConnectionError.closedByPeer)
                }
                write(bytes) { error in
                    if let error { continuation.resume(throwing: error) } else { continuation.resume() }
                }
            }
        }
    }
}

/// Part of a file on its way out, used by one thread at a time.
private final class FileTransfer: @unchecked Sendable {
    // SAFETY: handed from the loop to a bulk thread and back, never used by both.
    let file: Int32
    let beginning: Int
    private(set) var position: Int
    let end: Int
    private(set) var result = ChannelResult.moved(0)

    /// Opens the file; `nil` if that fails or the file ends before the range.
    init?(_ path: String, _ range: Range<Int>) {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return nil }
        var status = stat()
        guard fstat(file, &status) == 0, Int(status.st_size) >= range.upperBound else {
            close(file)
            return nil
        }
        self.file = file
        beginning = range.lowerBound
        position = range.lowerBound
        end = range.upperBound
    }

    deinit { close(file) }

    /// Sends until the peer is slow, the burst is full, or the range ends.
    func burst(_ channel: any ByteChannel) {
        let limit = min(end, position + BulkTransfers.burstByteCount)
        while position < limit {
            result = channel.sendFile(file, offset: position, count: min(2 << 20, limit - position))
            switch result {
            case .moved(let count): position += count
            case .blocked(let readiness):
                guard BulkTransfers.isSoonReady(channel.descriptor, readiness) else { return }
            case .ended, .failed: return
            }
        }
    }
}

/// Carries a closure through other threads back to the loop's queue.
private struct UncheckedClosure: @unchecked Sendable {
    // SAFETY: made and called on the loop's queue only.
    let body: () -> Void
    init(_ body: @escaping () -> Void) { self.body = body }
}
