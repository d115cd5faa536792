import Dispatch
import Foundation
import HTTPTypes
import Synchronization

/// Why a connection ended.
package enum ConnectionError: Error {
    case closedByPeer
    case system(Int32)
    case shutDown
}

/// One connection: reads requests and answers them in order; no wait is without a deadline.
///
/// A state machine on its loop's queue: ``advance()`` does what can be done now and returns. Handlers that must wait run as tasks and
/// come back through ``EventLoop/submit(_:)``.
final class HTTPConnection: @unchecked Sendable {
    // SAFETY: touched on `loop.queue` only, which the entries check; while `isLent` the channel alone belongs to a thread of a bulk
    // transfer.
    enum State {
        /// Between requests, or in the middle of a request's head.
        case head
        /// A handler has the request.
        case handling
        /// An answer is being sent; afterwards the connection is kept or closed.
        case answering(keepAlive: Bool)
        /// The part of a body that the handler did not read is read and thrown away.
        case draining
        /// The last answer has been sent. Reading goes on for a moment, because a reset could destroy the answer on its way.
        case lingering
        case ended
    }

    var id: UInt64 = 0
    let loop: EventLoop
    let channel: any ByteChannel
    let remoteAddress: String
    let configuration: ServerConfiguration
    let router: Router
    private let onEnd: @Sendable (HTTPConnection) -> Void

    var state = State.head
    /// Bytes that were read and not consumed, from `inputStart` on.
    var input: [UInt8] = []
    var inputStart = 0
    /// Bytes of an answer that wait for the peer, from `outputStart` on.
    var output: [UInt8] = []
    var outputStart = 0
    /// Called when `output` has been sent, or with the reason why it never will be.
    var afterOutput: ((ConnectionError?) -> Void)?
    var deadline = Int.max
    var canRead = true
    var canWrite = true
    /// Whether a thread of a bulk transfer has the channel.
    var isLent = false
    var owesContinue = false
    /// The paces of the body that comes in, of the file that goes out, and of the bytes in `output`.
    var bodyPace = TransferPace(now: 0)
    var filePace = TransferPace(now: 0)
    var outputPace = TransferPace(now: 0)
    var decoder = BodyDecoder(.none)
    /// The handler that waits for body bytes.
    var bodyWaiter: CheckedContinuation<[UInt8]?, any Error>?
    /// Continues a bulk transfer when the descriptor becomes readable or writable.
    var bulkResume: ((ConnectionError?) -> Void)?
    /// Why nothing can be sent any more.
    private(set) var hangUp: ConnectionError?
    /// The task of a handler that may wait.
    ///
    /// It is cancelled when the peer goes away, so that long polls end.
    private var handler: Task<Void, Never>?
    /// Whether the peer has closed its side: it went away, or waits for one last answer.
    private var peerHasClosed = false
    private var searched = 0
    private var isStopping = false
    var descriptor: Int32 { channel.descriptor }

    init(
        channel: any ByteChannel,
        remoteAddress: String,
        loop: EventLoop,
        configuration: ServerConfiguration,
        router: Router,
        onEnd: @escaping @Sendable (HTTPConnection) -> Void
    ) {
        self.channel = channel
        self.remoteAddress = remoteAddress
        self.loop = loop
        self.configuration = configuration
        self.router = router
        self.onEnd = onEnd
        deadline = EventLoop.monotonicNow() + configuration.firstByteTimeout.nanoseconds
    }

    // MARK: - Called by the loop

    /// Records what the descriptor is ready for, and goes on.
    func ready(isReadable: Bool, isWritable: Bool, isHalfClosed: Bool, isHangUp: Bool) {
        dispatchPrecondition(condition: .onQueue(loop.queue))
        if isReadable { canRead = true }
        if isWritable { canWrite = true }
        if isHalfClosed { peerHasClosed = true }
        if isHangUp { hangUp = .closedByPeer }
        guard !isLent else { return }
        if let resume = bulkResume {
            bulkResume = nil
            deadline = .max
            return resume(nil)
        }
        advance()
        // Cancels a long poll or a stream of events whose peer is gone.
        if isHangUp { fail(.closedByPeer) }
        if peerHasClosed { handler?.cancel() }
    }

    /// Ends waits whose deadline has passed.
    func sweep(now: Int) {
        dispatchPrecondition(condition: .onQueue(loop.queue))
        guard deadline <= now, !isLent else { return }
        deadline = .max
        let timedOut = configuration.events.timedOut
        switch state {
        case .lingering: fail(.closedByPeer)
        case .head where input.count > inputStart:
            timedOut("head", remoteAddress)
            refuse(ParseFailure(status: 408, detail: "the head took too long"))
        case .handling where bodyWaiter != nil:
            timedOut("body", remoteAddress)
            let waiter = bodyWaiter
            bodyWaiter = nil
            waiter?.resume(throwing: ParseFailure(status: 408, detail: "the body came too slowly"))
        case .head:
            timedOut("request", remoteAddress)
            fail(.closedByPeer)
        case .handling, .draining:
            timedOut("body", remoteAddress)
            fail(.closedByPeer)
        default:
            timedOut("answer", remoteAddress)
            fail(.closedByPeer)
        }
    }

    /// Ends the connection after the request in progress, or at once with `force`.
    func stop(force: Bool) {
        dispatchPrecondition(condition: .onQueue(loop.queue))
        isStopping = true
        if force { return fail(.shutDown) }
        if case .head = state { fail(.shutDown) }
    }

    /// Ends the connection with everything that waits for it.
    func fail(_ error: ConnectionError) {
        dispatchPrecondition(condition: .onQueue(loop.queue))
        hangUp = hangUp ?? error
        guard !isLent else { return }
        if let waiter = bodyWaiter {
            bodyWaiter = nil
            waiter.resume(throwing: error)
        }
        if let resume = bulkResume {
            bulkResume = nil
            resume(error)
        }
        if let after = afterOutput {
            afterOutput = nil
            after(error)
        }
        end()
    }

    /// Ends because this peer reads slowest, while more answers wait than there is room for.
    func giveWay() {
        guard !output.isEmpty else { return }
        configuration.events.timedOut("answer", remoteAddress)
        fail(.closedByPeer)
    }

    /// Closes the descriptor.
    func end() {
        dispatchPrecondition(condition: .onQueue(loop.queue))
        if case .ended = state { return }
        state = .ended
        handler?.cancel()
        output = []
        loop.hold(self, 0)
        loop.remove(self)
        channel.close()
        onEnd(self)
    }

    // MARK: - The machine

    /// How many reads and immediate answers one connection may have before other connections run.
    private static let turnLength = 64

    /// Does what can be done without waiting.
    ///
    /// A client that pipelines requests gets at most ``turnLength`` of them answered before other connections run.
    func advance() {
        dispatchPrecondition(condition: .onQueue(loop.queue))
        var turn = 0
        while true {
            switch state {
            case .head:
                guard turn < Self.turnLength else { return loop.submit { [self] in advance() } }
                turn += 1
                guard takeRequest() else { return }
            case .handling:
                feedBodyWaiter()
                return flushOutput()
            case .answering:
                flushOutput()
                // What follows an answer is decided by `afterOutput`.
                guard case .answering = state else { continue }
                return
            case .draining: guard drain() else { return }
            case .lingering:
                guard canRead else { return }
                guard turn < Self.turnLength else { return loop.submit { [self] in advance() } }
                turn += 1
                switch channel.read(into: loop.scratch) {
                case .moved: break
                case .blocked: canRead = false
                default: return end()
                }
            case .ended: return
            }
        }
    }

    /// Reads and starts one request.
    ///
    /// - Returns: Whether the state has changed and there may be more to do.
    private func takeRequest() -> Bool {
        if input.count == inputStart {
            guard canRead else { return false }
            switch channel.read(into: loop.scratch) {
            case .moved(let count):
                noteRead(count)
                return parse(UnsafeRawBufferPointer(rebasing: loop.scratch[0..<count]), isBuffered: false)
            case .blocked(let readiness): return block(readiness)
            case .ended, .failed:
                fail(.closedByPeer)
                return false
            }
        }
        if searched == input.count - inputStart {
            guard canRead else { return false }
            switch channel.read(into: loop.scratch) {
            case .moved(let count):
                noteRead(count)
                input += UnsafeRawBufferPointer(rebasing: loop.scratch[0..<count])
            case .blocked(let readiness): return block(readiness)
            case .ended, .failed:
                fail(.closedByPeer)
                return false
            }
        }
        let bytes = input
        return bytes.withUnsafeBytes { parse(UnsafeRawBufferPointer(rebasing: $0[inputStart...]), isBuffered: true) }
    }

    /// Finds a head in `bytes`, which are `input` or come straight from the socket, and starts its request.
    private func parse(_ bytes: UnsafeRawBufferPointer, isBuffered: Bool) -> Bool {
        // Empty lines before a request are skipped, as RFC 9112 section 2.2 allows.
        var start = 0
        while start + 1 < bytes.count, bytes[start] == 13, bytes[start + 1] == 10 { start += 2 }
        let rest = UnsafeRawBufferPointer(rebasing: bytes[start...])
        let end = HeadParser.endOfHead(rest, searchFrom: isBuffered ? max(0, searched - start) : 0)
        guard let end, end <= configuration.headByteLimit else {
            guard rest.count <= configuration.headByteLimit else {
                refuse(
                    ParseFailure(status: 431, detail: "the head is over \(configuration.headByteLimit) bytes")
                )
                return true
            }
            let wasEmpty = input.count == inputStart
            keep(rest, isBuffered: isBuffered, from: inputStart + start)
            compactInput()
            searched = input.count
            if wasEmpty && !input.isEmpty { deadline = loop.now + configuration.headTimeout.nanoseconds }
            return canRead
        }
        searched = 0
        do {
            let head = try HeadParser.parse(
                UnsafeRawBufferPointer(rebasing: rest[0..<end]),
                fieldLimit: configuration.headerFieldLimit
            )
            let following = UnsafeRawBufferPointer(rebasing: rest[end...])
            keep(following, isBuffered: isBuffered, from: inputStart + start + end)
            try begin(head)
        } catch {
            refuse(error)
        }
        return true
    }

    private func keep(_ rest: UnsafeRawBufferPointer, isBuffered: Bool, from start: Int) {
        if isBuffered {
            // Pipelined requests stay in place: moving each to the front would copy all that follow, every time.
            inputStart = start
            if inputStart == input.count { compactInput() }
        } else {
            input = Array(rest)
            inputStart = 0
        }
    }

    /// Moves bytes that are not consumed to the front.
    func compactInput() {
        if inputStart == input.count {
            input.removeAll(keepingCapacity: input.capacity <= 4096)
            inputStart = 0
        } else if inputStart > 0 {
            input.removeFirst(inputStart)
            inputStart = 0
        }
    }

    private func begin(_ head: RequestHead) throws(ParseFailure) {
        owesContinue = head.expectsContinue && head.framing != .none && head.framing != .length(0)
        decoder = BodyDecoder(head.framing)
        bodyPace = TransferPace(now: 0)
        deadline = .max
        var request = try ServerRequest(
            method: head.method,
            rawTarget: head.target,
            headers: head.fields,
            body: body(head.framing),
            requestID: requestID(head.fields)
        )
        request.remoteAddress = remoteAddress
        request.peerKey = channel.peerKey
        state = .handling
        // The loop of `advance` goes on from here. A recursive call for each pipelined request would exhaust the stack.
        if let response = router.handleImmediately(&request) { return beginAnswer(response, to: head) }
        let (router, loop) = (router, loop)
        handler = Task { [request] in
            let response = await router.handle(request)
            loop.submit {
                self.handler = nil
                self.beginAnswer(response, to: head)
                self.advance()
            }
        }
        // The peer may have sent several requests and closed before this one began.
        if peerHasClosed { handler?.cancel() }
    }

    /// The body for the handler: in memory if all of it came with the head.
    private func body(_ framing: RequestHead.Framing) -> any RequestBody {
        switch framing {
        case .none: return MemoryBody([])
        case .length(let count) where count <= input.count - inputStart && !owesContinue:
            let bytes = Array(input[inputStart..<(inputStart + count)])
            inputStart += count
            if inputStart == input.count { compactInput() }
            decoder = BodyDecoder(.none)
            return MemoryBody(bytes)
        case .length(let count): return ConnectionBody(connection: self, contentLength: count)
        case .chunked: return ConnectionBody(connection: self, contentLength: nil)
        }
    }

    /// Marks the socket as drained after a read that did not fill its space.
    ///
    /// Not if the peer has closed: its end of file is still to be read, and no event will report it again.
    func noteRead(_ count: Int) {
        if count < loop.scratch.count && channel.shortReadMeansDrained && !peerHasClosed { canRead = false }
    }

    private func block(_ readiness: ChannelResult.Readiness) -> Bool {
        // A channel may need to write before it can read: TLS in its handshake.
        if readiness == .readable { canRead = false } else { canWrite = false }
        return false
    }

    private func drain() -> Bool {
        do {
            while !decoder.isDone {
                if input.count > inputStart {
                    compactInput()
                    if try decoder.take(from: &input, limit: 1 << 18).isEmpty && decoder.isDone { break }
                    continue
                }
                guard canRead else { return false }
                switch channel.read(into: loop.scratch) {
                case .moved(let count): input += UnsafeRawBufferPointer(rebasing: loop.scratch[0..<count])
                case .blocked(let readiness): return block(readiness)
                case .ended, .failed:
                    end()
                    return false
                }
            }
        } catch {
            end()
            return false
        }
        awaitNextRequest()
        return true
    }

    func awaitNextRequest() {
        state = .head
        searched = 0
        let wait = input.count > inputStart ? configuration.headTimeout : configuration.idleTimeout
        deadline = loop.now + wait.nanoseconds
        if isStopping { fail(.shutDown) }
    }

    /// Answers a request that cannot be parsed, and ends the connection.
    private func refuse(_ failure: ParseFailure) {
        state = .handling
        let id = String(loop.nextIdentifier(), radix: 36)
        let response = router.refusal(failure, requestID: id)
        configuration.events.malformed(
            MalformedRequest(
                status: response.status,
                code: response.problemCode,
                detail: failure.detail,
                address: remoteAddress,
                requestID: id
            )
        )
        send(response, isHead: false, keepAlive: false, inChunks: false) { [self] in linger() }
    }

    private func beginAnswer(_ response: ServerResponse, to head: RequestHead) {
        guard case .handling = state else { return }
        let isFinished = decoder.isDone || (!owesContinue && isSmallEnoughToDrain(head.framing))
        let endsByClosing = head.isVersion10 && response.body.byteCount == nil
        // A peer that was too slow is not waited for again.
        let isEnding = isStopping || response.status == 408
        let keepAlive = head.keepAlive && isFinished && !isEnding && !endsByClosing && hangUp == nil
        send(response, isHead: head.method == "HEAD", keepAlive: keepAlive, inChunks: !head.isVersion10) { [self] in
            if keepAlive {
                state = .draining
                // One transfer timeout for the rest of an unwanted body; bytes that trickle in earn no more time.
                deadline = loop.now + configuration.transferTimeout.nanoseconds
                if decoder.isDone { awaitNextRequest() }
            } else if decoder.isDone {
                channel.finishWriting()
                end()
            } else {
                linger()
            }
        }
    }

    private func isSmallEnoughToDrain(_ framing: RequestHead.Framing) -> Bool {
        if case .length(let length) = framing { return length <= configuration.drainByteLimit }
        return framing == .none
    }

    private func linger() {
        channel.finishWriting()
        state = .lingering
        deadline = loop.now + configuration.lingerTimeout.nanoseconds
    }

    private static let requestIDField = HTTPField.Name("X-Request-Id")

    private func requestID(_ fields: HTTPFields) -> String {
        if let name = Self.requestIDField, let value = fields[name], (1...64).contains(value.utf8.count),
            value.utf8.allSatisfy(HeadParser.isTokenByte)
        {
            return value
        }
        return String(loop.nextIdentifier(), radix: 36)
    }
}

/// The start and the bytes of a transfer, whose peer must keep a least rate.
struct TransferPace {
    let start: Int
    var count = 0

    init(now: Int) { start = now }

    /// Bytes a second since the start, as if 64 kB had been taken before and a second had passed: whoever has only begun is no slow reader.
    func rate(now: Int) -> Double { Double(count + 65_536) / Double(max(1_000_000_000, now - start)) * 1e9 }

    /// How long the peer may be silent, as a time of the monotonic clock in nanoseconds.
    func deadline(now: Int, _ configuration: ServerConfiguration) -> Int {
        let patience = configuration.transferTimeout.nanoseconds
        let earned = Double(count) / Double(max(1, configuration.leastBytesPerSecond)) * 1e9
        return min(now + patience, start + patience + Int(min(earned, 1e17)))
    }
}

extension Duration {
    /// Whole nanoseconds; traps beyond 292 years.
    var nanoseconds: Int {
        Int(components.seconds) * 1_000_000_000 + Int(components.attoseconds / 1_000_000_000)
    }
}
