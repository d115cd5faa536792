import ArgumentParser
import Coordination
import CoordinatorAPI
import Dispatch
import Foundation
import HTTPServing
import LocalTraining
import Logging
import SQLiteStorage
import Tensors
import WireFormat

struct ServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "serve", abstract: "Run the server.")

    @OptionGroup var options: ServerOptions

    func run() async throws {
        let plan: ServerPlan
        do {
            plan = try ServerPlan(try options.settings())
        } catch let error as Settings.Invalid {
            throw ValidationError(error.description)
        }
        let dataDir = plan.dataDirectory
        var logger = Logger(label: "martlet") { label -> any LogHandler in
            if plan.logsJSON { return JSONLogHandler() }
            return StreamLogHandler.standardError(label: label)
        }
        logger.logLevel = plan.logLevel
        signal(SIGPIPE, SIG_IGN)
        // A limit on the size of files is a full disk to us, and no reason to die.
        signal(SIGXFSZ, SIG_IGN)
        // Whoever asks for the certificate to be read again while the data is still being verified must not end the server.
        signal(SIGHUP, SIG_IGN)
        do {
            try FileManager.default.createDirectory(
                atPath: dataDir,
                withIntermediateDirectories: true,
                attributes: [.posixPermissions: 0o700]
            )
        } catch {
            let isFile = FileManager.default.fileExists(atPath: dataDir)
            throw Failure(
                "cannot make the data directory \(dataDir): "
                    + (isFile ? "there is a file of that name" : "its parent is not there, or may not be written"),
                advice: "Give --data-dir a directory that this user may make or write, such as ./data."
            )
        }
        let lock = try DirectoryLock(directory: dataDir)
        defer { lock.release() }
        // Who waits for the server must not find where an earlier one was.
        try? FileManager.default.removeItem(atPath: dataDir + "/address")
        let gate = RecoveryGate()
        let metrics = MetricsRegistry.server()
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
        let certificate = try plan.tls.map { try TLSReloader($0) }
        if let certificate {
            http.makeChannel = { descriptor in
                TLSChannel(descriptor: descriptor, context: certificate.context) { events.noteHandshake($0) }
            }
            Self.note(certificate, metrics)
        } else if !ServerPlan.isLoopback(http.host) {
            logger.notice("Plain HTTP: whatever does TLS must stand in front", metadata: ["listen": "\(http.host)"])
        }
        let server = HTTPServer(configuration: http, router: gate.router, logger: logger)
        let actualPort = try await server.start()
        let coordinator = try await recover(plan, metrics, logger)
        do { try await prepareTokens(coordinator, plan, logger) } catch let error as CoordinationError {
            throw ValidationError(error.message)
        }
        let api = CoordinatorAPI(
            coordinator: coordinator,
            isOpen: plan.isOpen,
            requestLog: RequestLog(logger: logger, slowerThan: plan.slowRequest),
            limits: plan.limits,
            makeInitialModel: { try BuiltInModels.initialModel($0) },
            baseLayout: { try BuiltInModels.baseLayout($0) },
            modelFiles: { try BuiltInModels.files($0, weights: $1, base: $2) }
        )
        gate.open(api.router())
        let host = plan.http.host
        let url = "\(certificate == nil ? "http" : "https")://\(host.contains(":") ? "[\(host)]" : host):\(actualPort)"
        try BlobStore.writeDurably(Data((url + "\n").utf8), to: dataDir + "/address", mode: 0o644)
        print("martlet is listening on \(url)")
        fflush(nil)
        let clock = Task { @Sendable [logger] in
            while !Task.isCancelled {
                do { try await coordinator.tick() } catch {
                    logger.error("A tick failed", metadata: ["error": "\(error)"])
                }
                try? await Task.sleep(for: .milliseconds(250))
            }
        }
        let reloading = Task { @Sendable [logger] in
            for await _ in Signals.hangUps() {
                guard let certificate else { continue }
                do throws(TLSError) {
                    try certificate.reload()
                    Self.note(certificate, metrics)
                    logger.notice("The certificate was read again")
                } catch {
                    logger.error("The new certificate is not used", metadata: ["error": "\(error.description)"])
                }
            }
        }
        await Signals.waitForStop()
        logger.notice("Stopping")
        reloading.cancel()
        clock.cancel()
        await coordinator.stopServing()
        await server.shutdown(gracePeriod: plan.gracePeriod)
    }

    private static func note(_ certificate: TLSReloader, _ metrics: MetricsRegistry) {
        metrics.set("martlet_tls_certificate_expiry_timestamp_seconds", Double(certificate.context.expiry))
    }

    /// Opens the database and verifies what it says; a server that cannot trust its data does not start.
    private func recover(_ plan: ServerPlan, _ metrics: MetricsRegistry, _ logger: Logger) async throws -> Coordinator {
        do {
            return try await Coordinator(
                configuration: plan.coordination,
                store: try SQLiteRunStore(path: plan.dataDirectory + "/martlet.sqlite"),
                logger: logger,
                metrics: metrics
            )
        } catch {
            let reason =
                (error as? CoordinationError)?.message ?? (error as? StoreFailure)?.explanation ?? "\(error)"
            throw ValidationError(
                "the data in \(plan.dataDirectory) cannot be used: \(reason)\n"
                    + "Nothing was changed. martlet doctor --data-dir \(plan.dataDirectory) says more; "
                    + "martlet restore makes a directory of a backup."
            )
        }
    }

    /// The administrator's token, given or made at first start, and the viewer's, where a file is to hold one.
    private func prepareTokens(_ coordinator: Coordinator, _ plan: ServerPlan, _ logger: Logger) async throws {
        if let token = plan.adminToken {
            try await coordinator.ensureToken(token, role: .admin, name: "admin_token_file")
        } else if let token = try await coordinator.makeFirstAdminToken() {
            let path = plan.dataDirectory + "/admin-token"
            try BlobStore.writeDurably(Data((token + "\n").utf8), to: path)
            logger.notice("The administrator's token was written", metadata: ["path": "\(path)"])
        }
        guard let path = plan.viewerTokenFile else { return }
        if let data = FileManager.default.contents(atPath: path) {
            let text = String(decoding: data, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
            guard text.utf8.count >= 32, text.utf8.allSatisfy({ $0 > 32 && $0 < 127 }) else {
                throw ValidationError(
                    "viewer_token_file \(path) must hold one token of at least 32 printable characters"
                )
            }
            return try await coordinator.ensureToken(text, role: .viewer, name: "viewer_token_file")
        }
        let token = Secrets.token()
        try await coordinator.ensureToken(token, role: .viewer, name: "viewer_token_file")
        try BlobStore.writeDurably(Data((token + "\n").utf8), to: path)
    }
}

/// SIGTERM and SIGINT as something to wait for.
enum Signals {
    /// Waits for a signal.
    ///
    /// - Returns: Whether one came; `false` when the task was cancelled first.
    @discardableResult
    static func waitForStop() async -> Bool {
        for number in [SIGTERM, SIGINT] { signal(number, SIG_IGN) }
        let queue = DispatchQueue(label: "martlet.signals")
        let stream = AsyncStream<Void> { continuation in
            let sources = [SIGTERM, SIGINT].map { DispatchSource.makeSignalSource(signal: $0, queue: queue) }
            for source in sources {
                source.setEventHandler { continuation.yield() }
                source.resume()
            }
            let kept = UncheckedBox(sources)
            continuation.onTermination = { _ in for source in kept.value { source.cancel() } }
        }
        for await _ in stream { return true }
        return false
    }

    /// Every SIGHUP, until the task that waits is cancelled.
    static func hangUps() -> AsyncStream<Void> {
        signal(SIGHUP, SIG_IGN)
        let source = DispatchSource.makeSignalSource(signal: SIGHUP, queue: DispatchQueue(label: "martlet.hangup"))
        return AsyncStream { continuation in
            source.setEventHandler { continuation.yield() }
            source.resume()
            let kept = UncheckedBox([source])
            continuation.onTermination = { _ in for source in kept.value { source.cancel() } }
        }
    }

    private struct UncheckedBox: @unchecked Sendable {
        // SAFETY: only cancelled, once, after the stream has ended; Dispatch sources may be cancelled from any thread.
        let value: [any DispatchSourceSignal]
        init(_ value: [any DispatchSourceSignal]) { self.value = value }
    }
}
