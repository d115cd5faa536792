#if Curl
import CCurl
import CLibrary
import Dispatch
import Foundation
import Synchronization

/// Requests over libcurl's multi interface: one worker thread, connections kept and shared by all clients of the process.
public final class CurlTransport: Transport {
    private let worker: CurlWorker
    private let security: TransportSecurity
    private let now: @Sendable () -> ContinuousClock.Instant

    /// Starts the worker.
    ///
    /// - Parameters:
    ///   - connectionLimit: Connections to one host, at most; further requests wait for one.
    ///   - security: Whom to trust; by default what the environment says.
    public convenience init(connectionLimit: Int = 64, security: TransportSecurity = .environment) {
        self.init(connectionLimit: connectionLimit, security: security, now: { .now })
    }

    /// As above, with a clock for ``TransportRequest/answerSeconds``.
    package init(
        connectionLimit: Int = 64,
        security: TransportSecurity = .environment,
        now: @escaping @Sendable () -> ContinuousClock.Instant
    ) {
        self.security = security
        self.now = now
        worker = CurlWorker(connectionLimit: connectionLimit)
        worker.start()
    }

    deinit { worker.stop() }

    /// Sends one request.
    public func send(_ request: TransportRequest) async throws -> TransportResponse {
        let transfer = CurlTransfer(request, security, now)
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                transfer.continuation = continuation
                worker.submit(transfer)
            }
        } onCancel: {
            worker.cancel(transfer)
        }
    }
}

/// The thread that owns the multi handle; everything else reaches it through the inbox.
private final class CurlWorker: Sendable {
    private struct Inbox {
        var submitted: [CurlTransfer] = []
        var cancelled: [CurlTransfer] = []
        var isStopping = false
    }

    /// A pointer that may cross threads: `curl_multi_wakeup` is the one call that libcurl allows from any thread.
    private struct Handle: @unchecked Sendable {
        // SAFETY: used by the worker's thread, and by others for curl_multi_wakeup only.
        let multi: OpaquePointerBox
    }
    private typealias OpaquePointerBox = UnsafeMutableRawPointer

    private let inbox = Mutex(Inbox())
    private let handle: Handle

    init(connectionLimit: Int) {
        _ = Self.globalInitialization
        guard let multi = curl_multi_init() else { fatalError("libcurl has no memory for a multi handle") }
        _ = martlet_multi_set_long(multi, CURLMOPT_MAX_HOST_CONNECTIONS, connectionLimit)
        handle = Handle(multi: multi)
    }

    private static let globalInitialization: Void = { _ = curl_global_init(Int(CURL_GLOBAL_DEFAULT)) }()

    func start() {
        let thread = Thread { [self] in run() }
        thread.name = "martlet.curl"
        thread.start()
    }

    func submit(_ transfer: CurlTransfer) {
        inbox.withLock { $0.submitted.append(transfer) }
        curl_multi_wakeup(handle.multi)
    }

    func cancel(_ transfer: CurlTransfer) {
        inbox.withLock { $0.cancelled.append(transfer) }
        curl_multi_wakeup(handle.multi)
    }

    func stop() {
        inbox.withLock { $0.isStopping = true }
        curl_multi_wakeup(handle.multi)
    }

    private func run() {
        let multi = handle.multi
        var active: [UnsafeMutableRawPointer: CurlTransfer] = [:]
        while true {
            let work = inbox.withLock { inbox in
                defer { inbox = Inbox(isStopping: inbox.isStopping) }
                return inbox
            }
            for transfer in work.submitted {
                guard !transfer.isCancelled else {
                    transfer.finish(.failure(CancellationError()))
                    continue
                }
                guard let easy = transfer.prepare() else {
                    transfer.finish(
                        .failure(
                            transfer.failure
                                ?? ClientError(
                                    code: "storage",
                                    message: "a request could not be prepared: out of memory"
                                )
                        )
                    )
                    continue
                }
                curl_multi_add_handle(multi, easy)
                active[easy] = transfer
            }
            for transfer in work.cancelled {
                // A task that was cancelled already says so before it hands its request over.
                transfer.isCancelled = true
                guard let easy = transfer.easy, active.removeValue(forKey: easy) != nil else { continue }
                curl_multi_remove_handle(multi, easy)
                transfer.finish(.failure(CancellationError()))
            }
            if work.isStopping && active.isEmpty { break }
            var running: Int32 = 0
            curl_multi_perform(multi, &running)
            var queued: Int32 = 0
            while let message = curl_multi_info_read(multi, &queued) {
                guard message.pointee.msg == CURLMSG_DONE, let easy = message.pointee.easy_handle else { continue }
                let result = message.pointee.data.result
                curl_multi_remove_handle(multi, easy)
                active.removeValue(forKey: easy)?.complete(result)
            }
            let hasNewWork = inbox.withLock { !$0.submitted.isEmpty || !$0.cancelled.isEmpty }
            if !hasNewWork { curl_multi_poll(multi, nil, 0, 1000, nil) }
        }
        curl_multi_cleanup(multi)
    }
}

/// One request in flight.
private final class CurlTransfer: @unchecked Sendable {
    // SAFETY: made by the caller, then touched by the worker's thread only; `continuation` is set before `submit`.
    let request: TransportRequest
    private let security: TransportSecurity
    /// Where libcurl writes why a request failed.
    private let reason: UnsafeMutablePointer<CChar>
    var continuation: CheckedContinuation<TransportResponse, any Error>?
    private(set) var easy: UnsafeMutableRawPointer?
    /// Whether nobody waits for it any more, perhaps from before it was handed over.
    var isCancelled = false
    private var headerList: UnsafeMutablePointer<curl_slist>?
    private var upload: UnsafeMutablePointer<FILE>?
    private var sentByteCount = 0
    private var responseHeaders: [String: String] = [:]
    private var headIsComplete = false
    private var body: AnswerBody
    /// Why this side ended the transfer: its own files, or more bytes than may come; never taken for the network.
    private(set) var failure: ClientError?
    private var headByteCount = 0
    /// -1 before the transfer has begun: it may have waited for a connection.
    private var watchedByteCount = -1
    private var lastSent: ContinuousClock.Instant
    private let now: () -> ContinuousClock.Instant
    /// Bytes of all heads of one answer, at most.
    private static let headByteLimit = 256 << 10

    init(_ request: TransportRequest, _ security: TransportSecurity, _ now: @escaping () -> ContinuousClock.Instant) {
        self.request = request
        self.security = security
        self.now = now
        lastSent = now()
        body = AnswerBody(request)
        reason = .allocate(capacity: Int(CURL_ERROR_SIZE))
        reason.initialize(repeating: 0, count: Int(CURL_ERROR_SIZE))
    }

    deinit { reason.deallocate() }

    func prepare() -> UnsafeMutableRawPointer? {
        guard let easy = curl_easy_init() else { return nil }
        self.easy = easy
        let context = Unmanaged.passUnretained(self).toOpaque()
        _ = martlet_set_string(easy, CURLOPT_URL, request.url)
        // What was joined to the origin is what is asked for: no redirection, no path made anew.
        _ = martlet_set_long(easy, CURLOPT_FOLLOWLOCATION, 0)
        _ = martlet_set_long(easy, CURLOPT_PATH_AS_IS, 1)
        _ = martlet_set_string(easy, CURLOPT_USERAGENT, TransportRequest.userAgent)
        _ = martlet_allow_http_only(easy)
        _ = martlet_set_long(easy, CURLOPT_NOSIGNAL, 1)
        _ = martlet_set_pointer(easy, CURLOPT_ERRORBUFFER, reason)
        secure(easy)
        _ = martlet_set_long(easy, CURLOPT_CONNECTTIMEOUT_MS, 15_000)
        // Bytes in either direction are progress, however slow the link: only one that stands still is given up.
        _ = martlet_set_long(easy, CURLOPT_LOW_SPEED_LIMIT, 1)
        _ = martlet_set_long(easy, CURLOPT_LOW_SPEED_TIME, Int(max(1, min(1e6, request.timeoutSeconds)).rounded(.up)))
        if let longest = request.longestSeconds {
            _ = martlet_set_long(easy, CURLOPT_TIMEOUT_MS, Int(max(0.001, min(longest, 1e7)) * 1000))
        }
        _ = martlet_set_progress(
            easy,
            { context, _, _, _, sent in CurlTransfer.from(context).watch(sentByteCount: Int(sent)) },
            context
        )
        _ = martlet_set_callback(easy, CURLOPT_HEADERFUNCTION) { bytes, size, count, context in
            CurlTransfer.from(context).receiveHeader(bytes, size * count)
        }
        _ = martlet_set_pointer(easy, CURLOPT_HEADERDATA, context)
        _ = martlet_set_callback(easy, CURLOPT_WRITEFUNCTION) { bytes, size, count, context in
            CurlTransfer.from(context).receiveBody(bytes, size * count)
        }
        _ = martlet_set_pointer(easy, CURLOPT_WRITEDATA, context)
        if request.destination != nil { _ = martlet_set_long(easy, CURLOPT_BUFFERSIZE, 1 << 19) }
        guard prepareBody(easy) else {
            release()
            return nil
        }
        // The answer to HEAD has no body, whatever length its head speaks of.
        if request.method == "HEAD" { _ = martlet_set_long(easy, CURLOPT_NOBODY, 1) }
        _ = martlet_set_string(easy, CURLOPT_CUSTOMREQUEST, request.method)
        for (name, value) in request.headers { headerList = curl_slist_append(headerList, "\(name): \(value)") }
        _ = martlet_set_pointer(easy, CURLOPT_HTTPHEADER, headerList)
        return easy
    }

    /// The peer is verified, always; only whom to trust can be chosen.
    private func secure(_ easy: UnsafeMutableRawPointer) {
        _ = martlet_set_long(easy, CURLOPT_SSL_VERIFYPEER, 1)
        _ = martlet_set_long(easy, CURLOPT_SSL_VERIFYHOST, 2)
        _ = martlet_set_long(easy, CURLOPT_SSLVERSION, Int(CURL_SSLVERSION_TLSv1_2))
        for (option, value) in [
            (CURLOPT_CAINFO, security.authorityPath), (CURLOPT_PINNEDPUBLICKEY, security.pinnedKeys),
            (CURLOPT_SSLCERT, security.certificatePath), (CURLOPT_SSLKEY, security.keyPath),
        ] {
            if let value { _ = martlet_set_string(easy, option, value) }
        }
    }

    private func prepareBody(_ easy: UnsafeMutableRawPointer) -> Bool {
        switch request.body {
        case .none: return true
        case .bytes(let data):
            _ = martlet_set_offset(easy, CURLOPT_POSTFIELDSIZE_LARGE, curl_off_t(data.count))
            let copied = data.withUnsafeBytes { raw in
                raw.baseAddress.map {
                    martlet_set_pointer(easy, CURLOPT_COPYPOSTFIELDS, UnsafeMutableRawPointer(mutating: $0))
                } ?? martlet_set_string(easy, CURLOPT_COPYPOSTFIELDS, "")
            }
            headerList = curl_slist_append(headerList, "Expect:")
            return copied == CURLE_OK
        case .file(let path, let offset):
            let descriptor =
                request.followsLinks ? CLibrary.open(path, O_RDONLY | O_CLOEXEC) : PlainFile.open(path, O_RDONLY)
            guard descriptor >= 0, let file = fdopen(descriptor, "rb") else {
                failure = LocalFailure.error("read", path, errno)
                return false
            }
            upload = file
            fseek(file, 0, SEEK_END)
            let length = ftell(file) - offset
            guard length >= 0, fseek(file, offset, SEEK_SET) == 0 else {
                failure = ClientError(
                    code: "state_damaged",
                    message: "\(path) has fewer bytes than the server says have arrived of it"
                )
                return false
            }
            _ = martlet_set_long(easy, CURLOPT_UPLOAD, 1)
            _ = martlet_set_offset(easy, CURLOPT_INFILESIZE_LARGE, curl_off_t(length))
            _ = martlet_set_callback(easy, CURLOPT_READFUNCTION) { bytes, size, count, context in
                CurlTransfer.from(context).readBody(bytes, size * count)
            }
            _ = martlet_set_pointer(easy, CURLOPT_READDATA, Unmanaged.passUnretained(self).toOpaque())
            // One system call for each half mebibyte, and not for each 64 KiB.
            if length >= 1 << 20 { _ = martlet_set_long(easy, CURLOPT_UPLOAD_BUFFERSIZE, 1 << 19) }
            // A refusal before a large body saves the body; for a small one the extra wait costs more.
            if length < 1 << 20 { headerList = curl_slist_append(headerList, "Expect:") }
            return true
        }
    }

    private static func from(_ context: UnsafeMutableRawPointer?) -> CurlTransfer {
        guard let context else { preconditionFailure("libcurl lost the context") }
        return Unmanaged<CurlTransfer>.fromOpaque(context).takeUnretainedValue()
    }

    /// Ends an answer that never does: a server may send a byte now and then for ever, and every one of them is progress.
    ///
    /// The clock begins anew with each byte that is sent, so that an upload has the time that its link needs.
    private func watch(sentByteCount: Int) -> Int32 {
        if sentByteCount != watchedByteCount { (watchedByteCount, lastSent) = (sentByteCount, now()) }
        guard request.destination == nil, !(now() - lastSent < .seconds(max(0.001, min(request.answerSeconds, 1e7))))
        else {
            return 0
        }
        failure = ClientError(
            code: "network",
            message: "the answer of \(request.url) did not end within \(request.answerSeconds) s"
        )
        return 1
    }

    private func receiveHeader(_ bytes: UnsafeMutablePointer<CChar>?, _ count: Int) -> Int {
        guard let bytes else { return 0 }
        headByteCount += count
        guard headByteCount <= Self.headByteLimit else {
            failure = ClientError(
                invalid: "the head of an answer of \(request.url) has more than \(Self.headByteLimit) bytes"
            )
            return 0
        }
        let line = String(decoding: UnsafeRawBufferPointer(start: bytes, count: count), as: UTF8.self)
        if line.hasPrefix("HTTP/") { (responseHeaders, headIsComplete) = ([:], false) }
        if line.allSatisfy(\.isNewline) { headIsComplete = true }
        if let colon = line.firstIndex(of: ":"), responseHeaders.count < 200 {
            let value = line[line.index(after: colon)...].trimmingCharacters(in: .whitespacesAndNewlines)
            responseHeaders[line[..<colon].lowercased()] = value
        }
        return count
    }

    private func receiveBody(_ bytes: UnsafeMutablePointer<CChar>?, _ count: Int) -> Int {
        guard let bytes else { return 0 }
        do throws(ClientError) {
            try body.take(UnsafeRawBufferPointer(start: bytes, count: count), status: status, headers: responseHeaders)
        } catch {
            failure = error
            return 0
        }
        tellProgress()
        return count
    }

    /// Gives libcurl the next bytes of a file; one that became shorter meanwhile, or cannot be read, ends the request.
    private func readBody(_ bytes: UnsafeMutablePointer<CChar>?, _ count: Int) -> Int {
        guard let bytes, let upload else { return 0 }
        let read = fread(bytes, 1, count, upload)
        if read > 0 {
            sentByteCount += read
            tellProgress()
        }
        guard read == 0, ferror(upload) != 0, case .file(let path, _) = request.body else { return read }
        failure = LocalFailure.error("read", path, errno)
        return Int(CURL_READFUNC_ABORT)
    }

    private func tellProgress() {
        request.onProgress?(TransferProgress(sentByteCount: sentByteCount, receivedByteCount: body.byteCount))
    }

    private var status: Int {
        var code = 0
        if let easy { _ = martlet_get_long(easy, CURLINFO_RESPONSE_CODE, &code) }
        return code
    }

    func complete(_ result: CURLcode) {
        do throws(ClientError) { try body.close() } catch { failure = failure ?? error }
        if let failure { return finish(.failure(failure)) }
        guard result == CURLE_OK else {
            let detail = String(cString: reason)
            return finish(.failure(CurlFailure.error(result, detail: detail, url: request.url)))
        }
        // libcurl takes a head that was cut for an answer without a body.
        guard headIsComplete else {
            return finish(.failure(ClientError(code: "network", message: "the answer of \(request.url) was cut")))
        }
        finish(.success(TransportResponse(status: status, headers: responseHeaders, body: body.memory)))
    }

    func finish(_ result: Result<TransportResponse, any Error>) {
        release()
        continuation?.resume(with: result)
        continuation = nil
    }

    private func release() {
        if let upload { fclose(upload) }
        try? body.close()
        if let easy { curl_easy_cleanup(easy) }
        curl_slist_free_all(headerList)
        (upload, easy, headerList) = (nil, nil, nil)
    }
}
#endif
