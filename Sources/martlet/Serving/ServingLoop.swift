import Coordination
import CoordinatorAPI
import Foundation
import HTTPServing
import Logging
import WireFormat

#if canImport(Glibc)
import Glibc
#endif

/// What a server and a helper do alike around their routes: connections, TLS, the file with the address, ticks, a new certificate, the
/// end.
struct ServingLoop {
    let plan: ServerPlan
    /// How connections are served.
    let http: ServerConfiguration
    private let certificate: TLSReloader?
    private let metrics: MetricsRegistry
    private let logger: Logger

    /// Reads the certificate, and takes as many connections as the system allows open files.
    ///
    /// - Throws: ``TLSError``.
    init(_ plan: ServerPlan, requiresTLS13: Bool = false, _ metrics: MetricsRegistry, _ logger: Logger) throws {
        (self.plan, self.metrics, self.logger) = (plan, metrics, logger)
        metrics.set("martlet_build_info", 1, ["version": ProductVersion.current])
        var http = plan.http
        let descriptors = DescriptorLimit.raise()
        http.connectionLimit = DescriptorLimit.connections(wanted: http.connectionLimit, descriptors: descriptors)
        if http.connectionLimit < plan.http.connectionLimit {
            logger.warning(
                "Fewer connections than limits.connections: the system allows too few open files",
                metadata: ["connections": "\(http.connectionLimit)", "files": "\(descriptors)"]
            )
        }
        let events = ConnectionEvents(metrics: metrics, logger: logger)
        http.events = events.server
        let certificate = try plan.tls.map { configuration in
            var configuration = configuration
            if requiresTLS13 { configuration.requiresVersion13 = true }
            return try TLSReloader(configuration)
        }
        if let certificate {
            http.makeChannel = { descriptor in
                TLSChannel(descriptor: descriptor, context: certificate.context) { events.noteHandshake($0) }
            }
        } else if !ServerPlan.isLoopback(http.host) {
            logger.notice("Plain HTTP: whatever does TLS must stand in front", metadata: ["listen": "\(http.host)"])
        }
        (self.http, self.certificate) = (http, certificate)
        noteExpiry()
    }

    /// Says where it listens, on standard output and in the data directory.
    ///
    /// - Parameters:
    ///   - name: Who does.
    ///   - port: Where.
    /// - Throws: ``CoordinationError`` with code `storage_failed`.
    func announce(_ name: String, port: Int) throws {
        let host = plan.http.host
        let url = "\(certificate == nil ? "http" : "https")://\(host.contains(":") ? "[\(host)]" : host):\(port)"
        try DurableFiles.write(Data((url + "\n").utf8), to: plan.dataDirectory + "/address", mode: 0o644)
        Signals.started()
        print("\(name) is listening on \(url)")
        fflush(nil)
    }

    /// Serves until the process is told to stop, and then lets requests end.
    ///
    /// - Parameters:
    ///   - server: What listens.
    ///   - interval: Time between two ticks.
    ///   - tick: What time does.
    ///   - stopping: Is called before connections end.
    func run(
        _ server: HTTPServer,
        every interval: Duration,
        tick: @escaping @Sendable () async throws -> Void,
        stopping: () async -> Void = {}
    ) async {
        let clock = Task { @Sendable [logger] in
            while !Task.isCancelled {
                do { try await tick() } catch {
                    logger.error("A tick failed", metadata: ["error": "\(error)"])
                }
                try? await Task.sleep(for: interval)
            }
        }
        let reloading = Task { @Sendable in
            for await _ in Signals.hangUps() { reload() }
        }
        await Signals.waitForStop()
        logger.notice("Stopping")
        reloading.cancel()
        clock.cancel()
        await stopping()
        await server.shutdown(gracePeriod: plan.gracePeriod)
    }

    private func reload() {
        guard let certificate else { return }
        do throws(TLSError) {
            try certificate.reload()
            noteExpiry()
            logger.notice("The certificate was read again")
        } catch {
            logger.error("The new certificate is not used", metadata: ["error": "\(error.description)"])
        }
    }

    private func noteExpiry() {
        guard let certificate else { return }
        metrics.set("martlet_tls_certificate_expiry_timestamp_seconds", Double(certificate.context.expiry))
    }
}
