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
        let helper = try await open(plan, metrics, logger)
        try await prepareTokens(helper, plan, logger)
        let api = HelperAPI(
            helper: helper,
            limits: plan.limits,
            requestLog: RequestLog(logger: logger, slowerThan: plan.slowRequest)
        )
        let loop = try ServingLoop(plan, requiresTLS13: true, metrics, logger)
        let server = HTTPServer(configuration: loop.http, router: api.router(), logger: logger)
        let port = try await server.start()
        try loop.announce("the helper", port: port)
        await loop.run(server, every: .seconds(1), tick: { try await helper.tick() })
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
        guard try !DurableFiles.exists(path + "/martlet.sqlite") else {
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
            let (token, path) = (Secrets.token(), plan.dataDirectory + "/admin-token")
            // Written before it counts: a token that is in no file opens nothing for anybody.
            try TokenFiles.keepFirstAdmin(token, path)
            try await helper.ensureToken(token, role: .admin)
            logger.notice("The administrator's token was written", metadata: ["path": "\(path)"])
        }
        if let path = plan.viewerTokenFile {
            try await helper.ensureToken(TokenFiles.viewer(path), role: .viewer)
        }
    }
}
