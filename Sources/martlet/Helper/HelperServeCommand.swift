import ArgumentParser
import Coordination
import CoordinatorAPI
import Foundation
import HTTPServing
import HelperService
import Logging
import WireFormat

#if canImport(Glibc)
import Glibc
#endif

struct HelperServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Run a helper.",
        discussion: """
            Settings are those of martlet serve: flags, MARTLET_* variables, a file (--config). What is about runs, models and
            updates means nothing here, insecure_no_auth is refused, and TLS is 1.3.
            """
    )

    @OptionGroup var options: ServerOptions
    @Flag(help: "The privacy ledger never had a second record (ledger_head): make it of what the database holds.")
    var newLedgerHead = false

    func run() async throws {
        let plan: ServerPlan
        do {
            plan = try ServerPlan(try options.settings())
        } catch let error as Settings.Invalid {
            throw ValidationError(error.description)
        }
        guard !plan.isOpen else {
            throw ValidationError("insecure_no_auth is not for helpers: a session belongs to whoever made it")
        }
        var logger = Logger(label: "martlet") { label -> any LogHandler in
            if plan.logsJSON { return JSONLogHandler() }
            return TextLogHandler(label: label)
        }
        logger.logLevel = plan.logLevel
        signal(SIGPIPE, SIG_IGN)
        // A limit on the size of files is a full disk to us, and no reason to die.
        signal(SIGXFSZ, SIG_IGN)
        Signals.install { [logger] in
            logger.notice("Stopping: the start was not over yet")
            _exit(0)
        }
        let dataDir = plan.dataDirectory
        try Self.makeDirectory(dataDir)
        let lock = try DirectoryLock(directory: dataDir)
        defer { lock.release() }
        try? FileManager.default.removeItem(atPath: dataDir + "/address")
        let metrics = MetricsRegistry.helper()
        metrics.set("martlet_build_info", 1, ["version": ProductVersion.current])
        let helper = try await open(plan, metrics, logger)
        try await prepareTokens(helper, plan, logger)
        let api = HelperAPI(
            helper: helper,
            limits: plan.limits,
            requestLog: RequestLog(logger: logger, slowerThan: plan.slowRequest)
        )
        var http = plan.http
        http.connectionLimit = DescriptorLimit.connections(
            wanted: http.connectionLimit,
            descriptors: DescriptorLimit.raise()
        )
        let events = ConnectionEvents(metrics: metrics, logger: logger)
        http.events = events.server
        let certificate = try plan.tls.map { configuration in
            var configuration = configuration
            configuration.requiresVersion13 = true
            return try TLSReloader(configuration)
        }
        if let certificate {
            http.makeChannel = { descriptor in
                TLSChannel(descriptor: descriptor, context: certificate.context) { events.noteHandshake($0) }
            }
            Self.note(certificate, metrics)
        }
        let server = HTTPServer(configuration: http, router: api.router(), logger: logger)
        let port = try await server.start()
        let host = plan.http.host
        let url = "\(certificate == nil ? "http" : "https")://\(host.contains(":") ? "[\(host)]" : host):\(port)"
        try DurableFiles.write(Data((url + "\n").utf8), to: dataDir + "/address", mode: 0o644)
        Signals.started()
        print("the helper is listening on \(url)")
        fflush(nil)
        let clock = Task { @Sendable [logger] in
            while !Task.isCancelled {
                do { try await helper.tick() } catch {
                    logger.error("A tick failed", metadata: ["error": "\(error)"])
                }
                try? await Task.sleep(for: .seconds(1))
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
        await server.shutdown(gracePeriod: plan.gracePeriod)
    }

    private static func note(_ certificate: TLSReloader, _ metrics: MetricsRegistry) {
        metrics.set("martlet_tls_certificate_expiry_timestamp_seconds", Double(certificate.context.expiry))
    }

    private static func makeDirectory(_ path: String) throws {
        do {
            try FileManager.default.createDirectory(
                atPath: path,
                withIntermediateDirectories: true,
                attributes: [.posixPermissions: 0o700]
            )
        } catch {
            throw Failure(
                "cannot make the data directory \(path)",
                advice: "Give --data-dir a directory that this user may make or write, such as ./helper."
            )
        }
        // A server's texts and models, and a helper's keys, are to lie in different hands.
        guard access(path + "/martlet.sqlite", F_OK) != 0 else {
            throw Failure(
                "\(path) is a server's data directory",
                advice: "A helper has a directory of its own, on another machine than the server's."
            )
        }
    }

    /// Opens the database and verifies what it says; a helper that cannot trust its data does not start.
    private func open(_ plan: ServerPlan, _ metrics: MetricsRegistry, _ logger: Logger) async throws -> Helper {
        var configuration = HelperConfiguration(dataDirectory: plan.dataDirectory)
        configuration.ledgerHeadPath = plan.coordination.ledgerHeadPath
        configuration.mayMakeLedgerHead = newLedgerHead
        do {
            return try await Helper(configuration: configuration, logger: logger, metrics: metrics)
        } catch {
            let reason = StorageFailure(error)?.explanation ?? (error as? CoordinationError)?.message ?? "\(error)"
            throw Failure("the data in \(plan.dataDirectory) cannot be used: \(reason)")
        }
    }

    /// The administrator's token, given or made at first start, and the viewer's, where a file holds one.
    private func prepareTokens(_ helper: Helper, _ plan: ServerPlan, _ logger: Logger) async throws {
        if let token = plan.adminToken {
            try await helper.ensureToken(token, role: .admin)
        } else if await !helper.hasAdministrator {
            let token = Secrets.token()
            let path = plan.dataDirectory + "/admin-token"
            // Written before it counts: a token that is in no file opens nothing for anybody.
            try DurableFiles.write(Data((token + "\n").utf8), to: path)
            try await helper.ensureToken(token, role: .admin)
            logger.notice("The administrator's token was written", metadata: ["path": "\(path)"])
        }
        guard let path = plan.viewerTokenFile else { return }
        let text = FileManager.default.contents(atPath: path).map { String(decoding: $0, as: UTF8.self) }?
            .trimmingCharacters(in: .whitespacesAndNewlines)
        if let text {
            guard text.utf8.count >= 32 else {
                throw Failure("viewer_token_file \(path) must hold one token of at least 32 printable characters")
            }
            return try await helper.ensureToken(text, role: .viewer)
        }
        let token = Secrets.token()
        try DurableFiles.write(Data((token + "\n").utf8), to: path)
        try await helper.ensureToken(token, role: .viewer)
    }
}
