import Coordination
import HTTPServing
import Logging

/// Counts and logs what happens to connections; what happens to requests is `RequestLog`'s matter.
struct ConnectionEvents {
    let metrics: MetricsRegistry
    let logger: Logger

    /// For the server that listens.
    ///
    /// Lines are at `info`, as requests are: whoever attacks must not fill the log.
    var server: ServerEvents {
        let (metrics, logger) = (metrics, logger)
        let isFirstInAMinute = RateLimiter(.init(perSecond: 1.0 / 60, burst: 1), capacity: 1)
        var events = ServerEvents()
        events.connections = { metrics.add("martlet_http_connections", Double($0)) }
        events.refused = { reason, address in
            metrics.add("martlet_http_connections_refused_total", 1, ["reason": reason])
            guard reason != "files" else {
                // It is seen four times a second while it lasts.
                guard isFirstInAMinute.take("files") == nil else { return }
                return logger.warning("New connections wait: the system allows no more open files")
            }
            logger.info(
                "A connection was turned away",
                metadata: ["reason": "\(reason)", "client.address": "\(address)"]
            )
        }
        events.malformed = { request in
            metrics.add("martlet_http_malformed_requests_total", 1, ["status": String(request.status)])
            logger.info(
                "A request was not understood",
                metadata: [
                    "request.id": "\(request.requestID)", "http.status": "\(request.status)",
                    "error.code": "\(request.code ?? "")", "error.detail": "\(request.detail)",
                    "client.address": "\(request.address)",
                ]
            )
        }
        events.timedOut = { wait, address in
            metrics.add("martlet_http_timeouts_total")
            logger.info(
                "A peer was too slow",
                metadata: ["wait": "\(wait)", "client.address": "\(address)"]
            )
        }
        return events
    }

    /// How a TLS handshake ended.
    func noteHandshake(_ outcome: String) {
        metrics.add("martlet_tls_handshakes_total", 1, ["outcome": outcome])
        guard outcome != "done" else { return }
        logger.info("A TLS handshake failed", metadata: ["reason": "\(outcome)"])
    }
}
