import Coordination
import HTTPServing
import HTTPTypes
package import Logging
import Synchronization
import WireFormat

/// Where requests are logged, and from which time on they count as slow.
package struct RequestLog: Sendable {
    package var logger: Logger
    package var slowerThan: Duration

    package init(
        logger: Logger = Logger(label: "martlet.requests", factory: { _ in SwiftLogNoOpLogHandler() }),
        slowerThan: Duration = .seconds(5)
    ) {
        self.logger = logger
        self.slowerThan = slowerThan
    }

    private final class Once: Sendable { let isDone = Atomic(false) }
    private let proxyNote = Once()

    /// Says once that a proxy seems to stand in front which is not named: all its callers would be without limits, and the
    /// audit log would show its address for theirs.
    func noteProxy(_ address: String) {
        guard !proxyNote.isDone.exchange(true, ordering: .relaxed) else { return }
        logger.warning(
            "A proxy that behind_proxy does not name: rate limits and the audit log take its address for its callers'",
            metadata: ["proxy.address": "\(address)"]
        )
    }
}

extension CoordinatorAPI {
    /// Counts and logs an answer.
    @Sendable func observed(_ request: ServerRequest, _ response: ServerResponse, _ duration: Duration) {
        let metrics = coordinator.metrics
        let seconds = duration / .seconds(1)
        let route = request.route.isEmpty ? "unmatched" : request.route
        let method = Self.knownMethods.contains(request.method) ? request.method : "other"
        metrics.add(
            "martlet_http_requests_total",
            1,
            ["method": method, "route": route, "status": String(response.status)]
        )
        metrics.observe("martlet_http_request_duration_seconds", seconds, ["route": route])
        metrics.add("martlet_http_received_bytes_total", Double(request.body.contentLength ?? 0))
        metrics.add("martlet_http_sent_bytes_total", Double(response.body.byteCount ?? 0))
        if response.status == 401 { metrics.add("martlet_authentication_failures_total") }
        // Long polls are slow because they were asked to be.
        let waits = request.headers.contains { $0.name.canonicalName == "prefer" && $0.value.contains("wait=") }
        let isSlow = duration >= requestLog.slowerThan && !waits && request.route != Endpoints.events.template
        guard isSlow || requestLog.logger.logLevel <= .info else { return }
        var metadata: Logger.Metadata = [
            "request.id": "\(request.requestID)", "http.method": "\(request.method)", "http.route": "\(route)",
            "http.path": "\(request.path.prefix(300))", "http.status": "\(response.status)",
            "http.seconds": "\((seconds * 1e6).rounded() / 1e6)", "client.address": "\(request.remoteAddress)",
        ]
        if let code = response.problemCode { metadata["error.code"] = "\(code)" }
        if isSlow {
            requestLog.logger.warning("A request was slow", metadata: metadata)
        } else {
            requestLog.logger.info("A request was answered", metadata: metadata)
        }
    }

    /// Logs what the answer does not say: errors that are the server's own fault.
    func noteFailure(_ error: any Error, _ request: ServerRequest) {
        if let failure = StorageFailure(error) { coordinator.storage.note(failure) }
        guard ErrorMapping.isInternal(error) else { return }
        requestLog.logger.error(
            "A request failed inside the server",
            metadata: [
                "request.id": "\(request.requestID)", "http.method": "\(request.method)",
                "http.route": "\(request.route)", "error": "\(error)",
            ]
        )
    }

    private static let knownMethods: Set<String> = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
}
