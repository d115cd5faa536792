import CCurl
import Dispatch
import Foundation
import Synchronization

/// Requests over libcurl's multi interface: one worker thread, connections kept and shared by all clients of the process.
public final class CurlTransport: Transport {
    private let worker: CurlWorker
    private let security: TransportSecurity

    /// Starts the worker.
    ///
    /// - Parameters:
    ///   - connectionLimit: Connections to one host, at most; further requests wait for one.
    ///   - security: Whom to trust; by default what the environment says.
    public init(connectionLimit: Int = 64, security: TransportSecurity = .environment) {
        self.security = security
        worker = CurlWorker(connectionLimit: connectionLimit)
        worker.start()
    }

    deinit { worker.stop() }

    /// Sends one request.
    public func send(_ request: TransportRequest) async throws -> TransportResponse {
        let transfer = CurlTransfer(request, security)
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
                guard let easy = transfer.prepare() else {
                    transfer.finish(
                        .failure(ClientError(code: "network", message: "the request could not be prepared"))
                    )
                    continue
                }
                curl_multi_add_handle(multi, easy)
                active[easy] = transfer
            }
            for transfer in work.cancelled {
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
    private var headerList: UnsafeMutablePointer<curl_slist>?
    private var upload: UnsafeMutablePointer<FILE>?
    private var download: UnsafeMutablePointer<FILE>?
    private var responseHeaders: [String: String] = [:]
    private var headIsComplete = false
    private var responseBody = Data()
    private static let memoryLimit = 64 << 20

    init(_ request: TransportRequest, _ security: TransportSecurity) {
        self.request = request
        self.security = security
        reason = .allocate(capacity: Int(CURL_ERROR_SIZE))
        reason.initialize(repeating: 0, count: Int(CURL_ERROR_SIZE))
    }

    deinit { reason.deallocate() }

    func prepare() -> UnsafeMutableRawPointer? {
        guard let easy = curl_easy_init() else { return nil }
        self.easy = easy
        let context = Unmanaged.passUnretained(self).toOpaque()
        _ = martlet_set_string(easy, CURLOPT_URL, request.url)
        _ = martlet_set_string(easy, CURLOPT_USERAGENT, "martlet/0.1")
        _ = martlet_allow_http_only(easy)
        _ = martlet_set_long(easy, CURLOPT_NOSIGNAL, 1)
        _ = martlet_set_pointer(easy, CURLOPT_ERRORBUFFER, reason)
        secure(easy)
        _ = martlet_set_long(easy, CURLOPT_CONNECTTIMEOUT_MS, 15_000)
        _ = martlet_set_long(easy, CURLOPT_TIMEOUT_MS, Int(request.timeoutSeconds * 1000))
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
            guard let file = fopen(path, "rb") else { return false }
            upload = file
            fseek(file, 0, SEEK_END)
            let length = ftell(file) - offset
            guard length >= 0, fseek(file, offset, SEEK_SET) == 0 else { return false }
            _ = martlet_set_long(easy, CURLOPT_UPLOAD, 1)
            _ = martlet_set_offset(easy, CURLOPT_INFILESIZE_LARGE, curl_off_t(length))
            _ = martlet_set_callback(easy, CURLOPT_READFUNCTION) { bytes, size, count, context in
                guard let bytes, let file = CurlTransfer.from(context).upload else { return 0 }
                return fread(bytes, 1, size * count, file)
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

    private func receiveHeader(_ bytes: UnsafeMutablePointer<CChar>?, _ count: Int) -> Int {
        guard let bytes else { return 0 }
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
        if let destination = request.destination, status == 200 || status == 206 {
            if download == nil { download = open(destination, isPart: status == 206) }
            guard let download else { return 0 }
            return fwrite(bytes, 1, count, download)
        }
        guard responseBody.count + count <= Self.memoryLimit else { return 0 }
        responseBody.append(UnsafeRawPointer(bytes).assumingMemoryBound(to: UInt8.self), count: count)
        return count
    }

    /// Opens the file of an answer's body: anew, or where the part that was asked for begins.
    private func open(_ destination: String, isPart: Bool) -> UnsafeMutablePointer<FILE>? {
        guard isPart else { return fopen(destination, "wb") }
        let offset = request.destinationOffset
        guard responseHeaders["content-range"]?.hasPrefix("bytes \(offset)-") ?? false,
            let file = fopen(destination, "r+b")
        else { return nil }
        guard ftruncate(fileno(file), off_t(offset)) == 0, fseek(file, offset, SEEK_SET) == 0 else {
            fclose(file)
            return nil
        }
        return file
    }

    private var status: Int {
        var code = 0
        if let easy { _ = martlet_get_long(easy, CURLINFO_RESPONSE_CODE, &code) }
        return code
    }

    func complete(_ result: CURLcode) {
        guard result == CURLE_OK else {
            let detail = String(cString: reason)
            return finish(.failure(TransportFailure.error(result, detail: detail, url: request.url)))
        }
        // libcurl takes a head that was cut for an answer without a body.
        guard headIsComplete else {
            return finish(.failure(ClientError(code: "network", message: "the answer of \(request.url) was cut")))
        }
        finish(.success(TransportResponse(status: status, headers: responseHeaders, body: responseBody)))
    }

    func finish(_ result: Result<TransportResponse, any Error>) {
        release()
        continuation?.resume(with: result)
        continuation = nil
    }

    private func release() {
        if let upload { fclose(upload) }
        if let download { fclose(download) }
        if let easy { curl_easy_cleanup(easy) }
        curl_slist_free_all(headerList)
        (upload, download, easy, headerList) = (nil, nil, nil, nil)
    }
}
