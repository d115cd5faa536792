public import MartletTransport

#if canImport(FoundationNetworking)
import Foundation
public import FoundationNetworking
#else
public import Foundation
#endif

/// Requests over Foundation's `URLSession`, for apps that link no libcurl of their own.
///
/// Whom to trust is the system's business: what `TransportSecurity` and its environment variables ask for is not possible here, and
/// is refused rather than passed over. Cookies, caches and stored passwords are not used.
public final class URLSessionTransport: Transport {
    private let session: URLSession
    private let transfers: SessionTransfers
    private let security: TransportSecurity

    /// Opens a session.
    ///
    /// - Parameters:
    ///   - connectionLimit: Connections to one host, at most; further requests wait for one.
    ///   - configuration: A session's settings, such as whether expensive networks may be used; by default an ephemeral session's.
    ///   - security: What was asked for beyond the system's trust; by default what the environment says.
    public init(
        connectionLimit: Int = 64,
        configuration: URLSessionConfiguration = .ephemeral,
        security: TransportSecurity = .environment
    ) {
        self.security = security
        configuration.httpMaximumConnectionsPerHost = connectionLimit
        configuration.httpCookieAcceptPolicy = .never
        configuration.httpShouldSetCookies = false
        configuration.httpCookieStorage = nil
        configuration.urlCache = nil
        configuration.urlCredentialStorage = nil
        configuration.requestCachePolicy = .reloadIgnoringLocalCacheData
        // The transfers watch the time themselves, by the same rule on every platform.
        configuration.timeoutIntervalForRequest = Self.farSeconds
        configuration.timeoutIntervalForResource = Self.farSeconds
        let queue = OperationQueue()
        queue.maxConcurrentOperationCount = 1
        transfers = SessionTransfers()
        session = URLSession(configuration: configuration, delegate: transfers, delegateQueue: queue)
    }

    deinit { session.finishTasksAndInvalidate() }

    /// A month: nothing of Martlet's lasts longer.
    private static let farSeconds = 2_678_400.0

    /// Sends one request.
    public func send(_ request: TransportRequest) async throws -> TransportResponse {
        guard security == TransportSecurity() else {
            throw ClientError(
                code: "tls_failed",
                message:
                    "URLSession trusts what the system trusts: an authority, a pinned key or a client's certificate of Martlet's "
                    + "own (MARTLET_CA_FILE and the like) needs CurlTransport"
            )
        }
        let (task, copy) = try task(for: request)
        defer { if let copy { try? FileManager.default.removeItem(atPath: copy) } }
        let transfer = SessionTransfer(request, task)
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                transfers.add(transfer)
                transfer.begin(continuation)
            }
        } onCancel: {
            transfer.end(.failure(CancellationError()))
        }
    }

    /// A session's task for a request, and the copy of a file's rest that it sends.
    private func task(for request: TransportRequest) throws(ClientError) -> (URLSessionDataTask, copy: String?) {
        guard let url = URL(string: request.url), url.absoluteString == request.url,
            ["http", "https"].contains(url.scheme?.lowercased()), url.host?.isEmpty == false
        else { throw ClientError(code: "server_url", message: "\(request.url) is no URL of a server") }
        var sent = URLRequest(url: url)
        sent.httpMethod = request.method
        sent.timeoutInterval = Self.farSeconds
        sent.setValue(TransportRequest.userAgent, forHTTPHeaderField: "User-Agent")
        // Ranges and hashes are those of the bytes on their way.
        sent.setValue("identity", forHTTPHeaderField: "Accept-Encoding")
        for (name, value) in request.headers { sent.setValue(value, forHTTPHeaderField: name) }
        switch request.body {
        case .none: return (session.dataTask(with: sent), nil)
        case .bytes(let data):
            sent.httpBody = data
            return (session.dataTask(with: sent), nil)
        case .file(let path, let offset):
            switch try RequestFile.part(path, from: offset, followsLinks: request.followsLinks) {
            case .bytes(let data):
                sent.httpBody = data
                return (session.dataTask(with: sent), nil)
            case .file(let path):
                return (session.uploadTask(with: sent, fromFile: URL(fileURLWithPath: path)), nil)
            case .copy(let path):
                return (session.uploadTask(with: sent, fromFile: URL(fileURLWithPath: path)), path)
            }
        }
    }
}
