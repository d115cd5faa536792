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

#if canImport(Glibc)
import Glibc
#endif

struct ServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "serve", abstract: "Run the server.")

    @OptionGroup var options: ServerOptions
    @Flag(help: "Make a new database although the directory holds files of an earlier one, which is then out of reach.")
    var startAnew = false
    @Flag(help: "The privacy ledger never had a second record (ledger_head): make it of what the database holds.")
    var newLedgerHead = false

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
            return TextLogHandler(label: label)
        }
        logger.logLevel = plan.logLevel
        signal(SIGPIPE, SIG_IGN)
        // A limit on the size of files is a full disk to us, and no reason to die.
        signal(SIGXFSZ, SIG_IGN)
        // Before anything is announced: whoever stops a server that has just said where it listens must not be unheard. SIGHUP while
        // the data is still being verified ends nothing. Everything that is stored stands whenever the process ends.
        Signals.install { [logger] in
            logger.notice("Stopping: the start was not over yet")
            _exit(0)
        }
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
        let ledgerHead = plan.coordination.ledgerHeadPath
        try Self.requireDatabase(DataDirectory(path: dataDir, ledgerHead: ledgerHead), startAnew: startAnew)
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
            throw Failure(error.message)
        }
        let api = CoordinatorAPI(
            coordinator: coordinator,
            isOpen: plan.isOpen,
            requestLog: RequestLog(logger: logger, slowerThan: plan.slowRequest),
            limits: plan.limits,
            makeInitialModel: { try BuiltInModels.initialModel($0) },
            architectures: BuiltInModels.trained,
            baseLayout: { try BuiltInModels.baseLayout($0) },
            modelFiles: { try BuiltInModels.files($0, weights: $1, base: $2) }
        )
        gate.open(api.router())
        let host = plan.http.host
        let url = "\(certificate == nil ? "http" : "https")://\(host.contains(":") ? "[\(host)]" : host):\(actualPort)"
        try DurableFiles.write(Data((url + "\n").utf8), to: dataDir + "/address", mode: 0o644)
        Signals.started()
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
        var coordination = plan.coordination
        coordination.mayMakeLedgerHead = newLedgerHead
        // Four ticks a second are due.
        coordination.awayAfterSeconds = 5
        do {
            return try await Coordinator(
                configuration: coordination,
                store: try SQLiteRunStore(path: plan.dataDirectory + "/martlet.sqlite"),
                logger: logger,
                metrics: metrics
            )
        } catch {
            let reason: String
            if let failure = error as? StoreFailure {
                reason = failure.explanation + (failure.cause == .other ? " (\(failure.detail))" : "")
            } else if let failure = StorageFailure(error) {
                reason = failure.explanation + (failure.path.isEmpty ? "" : " (\(failure.path))")
            } else {
                reason = (error as? CoordinationError)?.message ?? "\(error)"
            }
            throw Failure(
                "the data in \(plan.dataDirectory) cannot be used: \(reason)",
                advice: "Nothing was changed. martlet doctor --data-dir \(plan.dataDirectory) says more; "
                    + "martlet restore makes a directory of a backup."
            )
        }
    }

    /// Refuses a directory whose database is gone while other files of it are there.
    private static func requireDatabase(_ directory: DataDirectory, startAnew: Bool) throws {
        guard let finding = try directory.missingDatabase() else { return }
        guard startAnew else {
            throw Failure(
                "the data in \(directory.path) cannot be used: \(finding.message)",
                advice: (finding.remedy ?? "") + ", or start with --start-anew to give up what it held"
            )
        }
        // What they said may be needed yet, and the new server's must not be taken for them.
        let stamp = Int(Date().timeIntervalSince1970)
        for path in [directory.path + "/admin-token", directory.ledgerHeadPath] where try DurableFiles.exists(path) {
            guard rename(path, "\(path).before-\(stamp)") == 0 else {
                throw Failure("\(path) cannot be put aside: \(StorageFailure.reason(errno))")
            }
        }
    }

    /// The administrator's token, given or made at first start, and the viewer's, where a file is to hold one.
    private func prepareTokens(_ coordinator: Coordinator, _ plan: ServerPlan, _ logger: Logger) async throws {
        if let token = plan.adminToken {
            try await coordinator.ensureToken(token, role: .admin, name: "admin_token_file")
        } else {
            let path = plan.dataDirectory + "/admin-token"
            // Written before it counts: a token that is in no file opens nothing for anybody.
            let isMade = try await coordinator.makeFirstAdminToken { token in
                if try DurableFiles.exists(path) {
                    rename(path, path + ".before-\(Int(Date().timeIntervalSince1970))")
                }
                try Self.keep(token, at: path, setting: "data_dir")
            }
            if isMade != nil { logger.notice("The administrator's token was written", metadata: ["path": "\(path)"]) }
        }
        guard let path = plan.viewerTokenFile else { return }
        let known: Data?
        do throws(CoordinationError) {
            known = try DurableFiles.readIfPresent(path)
        } catch {
            let reason = error.storage.map { StorageFailure.reason($0.code) } ?? error.message
            throw Failure("viewer_token_file \(path) cannot be read: \(reason)")
        }
        if let data = known {
            let text = String(decoding: data, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
            guard text.utf8.count >= 32, text.utf8.allSatisfy({ $0 > 32 && $0 < 127 }) else {
                throw Failure("viewer_token_file \(path) must hold one token of at least 32 printable characters")
            }
            return try await coordinator.ensureToken(text, role: .viewer, name: "viewer_token_file")
        }
        let token = Secrets.token()
        try Self.keep(token, at: path, setting: "viewer_token_file")
        try await coordinator.ensureToken(token, role: .viewer, name: "viewer_token_file")
    }

    /// Writes a token to its file, with the setting's name in the error.
    private static func keep(_ token: String, at path: String, setting: String) throws {
        do {
            try DurableFiles.write(Data((token + "\n").utf8), to: path)
        } catch {
            guard let failure = StorageFailure(error) else { throw error }
            let isParent = failure.isMissing
            throw Failure(
                "\(setting): \(path) cannot be made: "
                    + (isParent ? "its directory is not there" : StorageFailure.reason(failure.code)),
                advice: isParent
                    ? "Make the directory, or name another file."
                    : StorageFailure.advice(failure.code).map { "To do: \($0)." }
            )
        }
    }
}
