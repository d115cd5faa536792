import Dispatch
import Synchronization

/// The body of the request that a connection is serving, read from the socket as the handler asks for it.
struct ConnectionBody: RequestBody {
    let connection: HTTPConnection
    let contentLength: Int?

    func read() async throws -> [UInt8]? {
        try await withCheckedThrowingContinuation { continuation in
            connection.loop.submit { connection.readBody(continuation) }
        }
    }

    func receive(into sink: any BodySink) async throws {
        guard contentLength != nil else { return try await receiveBlocks(into: sink) }
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
            connection.loop.submit { connection.receiveBody(into: sink, continuation) }
        }
    }
}

extension HTTPConnection {
    var isBroken: Bool {
        if case .ended = state { return true }
        return hangUp != nil
    }

    func readBody(_ continuation: CheckedContinuation<[UInt8]?, any Error>) {
        dispatchPrecondition(condition: .onQueue(loop.queue))
        guard case .handling = state, bodyWaiter == nil, !isLent else {
            return continuation.resume(throwing: ConnectionError.closedByPeer)
        }
        beginBody()
        bodyWaiter = continuation
        feedBodyWaiter()
        if bodyWaiter != nil { awaitPeer(bodyPace) }
    }

    /// Sets the deadline that the transfer's pace allows, and ends the connection if that has passed.
    ///
    /// The periodic sweep alone would not do: with bytes that trickle in, the connection is mostly not waiting when the sweep comes.
    func awaitPeer(_ pace: TransferPace) {
        deadline = pace.deadline(now: loop.now, configuration)
        sweep(now: loop.now)
    }

    /// Starts the clock of the body, and sends `100 Continue` if the peer waits for it.
    private func beginBody() {
        if bodyPace.start == 0 { bodyPace = TransferPace(now: loop.now) }
        guard owesContinue else { return }
        owesContinue = false
        write(Array("HTTP/1.1 100 Continue\r\n\r\n".utf8)) { _ in }
    }

    /// Resumes the handler that waits for body bytes, if there are any.
    func feedBodyWaiter() {
        guard let waiter = bodyWaiter else { return }
        let result: Result<[UInt8]?, any Error>
        do {
            guard let bytes = try nextBodyBytes() else { return }
            bodyPace.count += bytes.count
            result = .success(bytes.isEmpty ? nil : bytes)
        } catch {
            result = .failure(error)
        }
        bodyWaiter = nil
        deadline = .max
        waiter.resume(with: result)
    }

    /// The next bytes; empty at the end of the body, `nil` if none have arrived.
    private func nextBodyBytes() throws -> [UInt8]? {
        while true {
            compactInput()
            let bytes = try decoder.take(from: &input, limit: 1 << 18)
            if !bytes.isEmpty { return bytes }
            if decoder.isDone { return [] }
            guard canRead else { return nil }
            switch channel.read(into: loop.scratch) {
            case .moved(let count):
                noteRead(count)
                input += UnsafeRawBufferPointer(rebasing: loop.scratch[0..<count])
            case .blocked(let readiness):
                if readiness == .readable { canRead = false }
                return nil
            case .ended, .failed: throw ConnectionError.closedByPeer
            }
        }
    }

    // MARK: - Bulk

    func receiveBody(into sink: any BodySink, _ continuation: CheckedContinuation<Void, any Error>) {
        dispatchPrecondition(condition: .onQueue(loop.queue))
        guard case .handling = state, bodyWaiter == nil, !isLent else {
            return continuation.resume(throwing: ConnectionError.closedByPeer)
        }
        beginBody()
        compactInput()
        let transfer = BodyTransfer(sink: sink, remaining: decoder.remainingLength ?? 0, continuation: continuation)
        // Bytes that came with the head go first.
        transfer.leading = Array(input.prefix(transfer.remaining))
        inputStart = transfer.leading.count
        compactInput()
        lend(transfer)
    }

    private func lend(_ transfer: BodyTransfer) {
        isLent = true
        canRead = false
        deadline = .max
        BulkTransfers.run { [self] in
            transfer.burst(channel)
            loop.submit { [self] in
                isLent = false
                decoder = BodyDecoder(.length(transfer.remaining))
                proceed(transfer)
            }
        }
    }

    private func proceed(_ transfer: BodyTransfer) {
        if let error = transfer.failure {
            // The rest of the body is still to come: the answer closes the connection unless it is small.
            transfer.continuation.resume(throwing: error)
            if error is ConnectionError { fail(.closedByPeer) }
        } else if transfer.remaining == 0 {
            transfer.continuation.resume()
        } else if isBroken {
            transfer.continuation.resume(throwing: ConnectionError.closedByPeer)
            fail(.closedByPeer)
        } else if transfer.isBlocked && !canRead {
            bodyPace.count = transfer.total - transfer.remaining
            bulkResume = { [self] error in
                if let error { transfer.continuation.resume(throwing: error) } else { lend(transfer) }
            }
            awaitPeer(bodyPace)
        } else {
            lend(transfer)
        }
    }
}

/// A body on its way into a sink, used by one thread at a time.
final class BodyTransfer: @unchecked Sendable {
    // SAFETY: handed from the loop to a bulk thread and back, never used by both.
    let sink: any BodySink
    let continuation: CheckedContinuation<Void, any Error>
    var leading: [UInt8] = []
    let total: Int
    private(set) var remaining: Int
    private(set) var isBlocked = false
    private(set) var failure: (any Error)?

    init(sink: any BodySink, remaining: Int, continuation: CheckedContinuation<Void, any Error>) {
        self.sink = sink
        total = remaining
        self.remaining = remaining
        self.continuation = continuation
    }

    /// Reads until the peer is slow, the burst is full, or the body ends.
    func burst(_ channel: any ByteChannel) {
        isBlocked = false
        do {
            if !leading.isEmpty {
                try leading.withUnsafeBytes { try sink.write($0) }
                remaining -= leading.count
                leading = []
            }
            guard remaining > 0 else { return }
            let space = UnsafeMutableRawBufferPointer.allocate(
                byteCount: min(remaining, BulkTransfers.blockByteCount),
                alignment: 4096
            )
            defer { space.deallocate() }
            let limit = max(0, remaining - BulkTransfers.burstByteCount)
            while remaining > limit {
                // The block is filled before it is written: few large writes, and the hash reads from the cache.
                var filled = 0
                let wanted = min(space.count, remaining)
                fill: while filled < wanted {
                    switch channel.read(into: UnsafeMutableRawBufferPointer(rebasing: space[filled..<wanted])) {
                    case .moved(let count): filled += count
                    case .blocked(let readiness):
                        if BulkTransfers.isSoonReady(channel.descriptor, readiness) { continue }
                        isBlocked = true
                        break fill
                    case .ended, .failed:
                        if filled > 0 { try sink.write(UnsafeRawBufferPointer(rebasing: space[0..<filled])) }
                        remaining -= filled
                        throw ConnectionError.closedByPeer
                    }
                }
                if filled > 0 { try sink.write(UnsafeRawBufferPointer(rebasing: space[0..<filled])) }
                remaining -= filled
                if isBlocked { return }
            }
        } catch {
            failure = error
        }
    }
}
