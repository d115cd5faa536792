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
        let loop = try ServingLoop(plan, metrics, logger)
        let server = HTTPServer(configuration: loop.http, router: gate.router, logger: logger)
        let port = try await server.start()
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
        try loop.announce("martlet", port: port)
        await loop.run(
            server,
            every: .milliseconds(250),
            tick: { try await coordinator.tick() },
            stopping: { await coordinator.stopServing() }
        )
    }

    /// Opens the database and verifies what it says; a server that cannot trust its data does not start.
    private func recover(_ plan: ServerPlan, _ metrics: MetricsRegistry, _ logger: Logger) async throws -> Coordinator {
        var coordination = plan.coordination
        coordination.mayMakeLedgerHead = newLedgerHead
        // Four ticks a second are due.
        coordination.awayAfterSeconds = 5
        do {
            coordination.helper = try plan.helper?.setting()
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
                try TokenFiles.keepFirstAdmin(token, path)
            }
            if isMade != nil { logger.notice("The administrator's token was written", metadata: ["path": "\(path)"]) }
        }
        if let path = plan.viewerTokenFile {
            try await coordinator.ensureToken(TokenFiles.viewer(path), role: .viewer, name: "viewer_token_file")
        }
    }
}
