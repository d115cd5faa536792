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

    @Option(help: "Where everything is kept; made where it is missing.") var dataDir: String
    @Option(help: "HOST:PORT; port 0 takes a free one.") var listen = "127.0.0.1:8080"
    @Flag(help: "Everyone is an administrator; loopback addresses only.") var insecureNoAuth = false
    @Option(help: "trace, debug, info, notice, warning, error.") var logLevel = "notice"

    func validate() throws {
        _ = try address()
        guard Logger.Level(rawValue: logLevel) != nil else {
            throw ValidationError("--log-level \(logLevel) is not a level")
        }
    }

    func run() async throws {
        let (host, port) = try address()
        var logger = Logger(label: "martlet") { StreamLogHandler.standardError(label: $0) }
        logger.logLevel = Logger.Level(rawValue: logLevel) ?? .notice
        signal(SIGPIPE, SIG_IGN)
        try FileManager.default.createDirectory(
            atPath: dataDir,
            withIntermediateDirectories: true,
            attributes: [.posixPermissions: 0o700]
        )
        let lock = try DirectoryLock(directory: dataDir)
        defer { lock.release() }
        let store = try SQLiteRunStore(path: dataDir + "/martlet.sqlite")
        let coordinator = try await Coordinator(
            configuration: CoordinatorConfiguration(dataDirectory: dataDir),
            store: store,
            logger: logger
        )
        if let token = try await coordinator.makeFirstAdminToken() {
            try BlobStore.writeDurably(Data((token + "\n").utf8), to: dataDir + "/admin-token")
            logger.notice("The administrator's token was written", metadata: ["path": "\(dataDir)/admin-token"])
        }
        let api = CoordinatorAPI(coordinator: coordinator, isOpen: insecureNoAuth, makeInitialModel: Self.initialModel)
        let server = HTTPServer(
            configuration: ServerConfiguration(host: host, port: port),
            router: api.router(),
            logger: logger
        )
        let actualPort = try await server.start()
        let url = "http://\(host.contains(":") ? "[\(host)]" : host):\(actualPort)"
        try BlobStore.writeDurably(Data((url + "\n").utf8), to: dataDir + "/address", mode: 0o644)
        print("martlet is listening on \(url)")
        fflush(nil)
        let clock = Task {
            while !Task.isCancelled {
                do { try await coordinator.tick() } catch {
                    logger.error("A tick failed", metadata: ["error": "\(error)"])
                }
                try? await Task.sleep(for: .milliseconds(250))
            }
        }
        await Signals.waitForStop()
        logger.notice("Stopping")
        clock.cancel()
        await coordinator.stopServing()
        await server.shutdown(gracePeriod: .seconds(10))
    }

    private func address() throws -> (host: String, port: Int) {
        guard let colon = listen.lastIndex(of: ":"), let port = Int(listen[listen.index(after: colon)...]),
            (0...65_535).contains(port)
        else { throw ValidationError("--listen must be HOST:PORT, such as 127.0.0.1:8080") }
        let host = listen[..<colon].trimmingCharacters(in: CharacterSet(charactersIn: "[]"))
        guard !insecureNoAuth || ["127.0.0.1", "::1", "localhost"].contains(host) else {
            throw ValidationError("--insecure-no-auth is for loopback addresses only, not \(host)")
        }
        return (host, port)
    }

    /// The first version of a built-in architecture; `nil` where the weights will be uploaded.
    private static let initialModel: @Sendable (RunSpecification.Model) throws -> ParameterVector? = { model in
        guard model.architecture == "cifg-lstm", let config = model.config else { return nil }
        let alphabet = config.alphabet ?? CharacterTokenizer.messages
        guard config.vocabSize == alphabet.unicodeScalars.count + 4 else {
            throw DocumentError(
                "/model/config/vocab_size",
                "must be \(alphabet.unicodeScalars.count + 4), the alphabet's characters and 4; or give another alphabet"
            )
        }
        let configuration = CIFGLSTMConfiguration(
            vocabularySize: config.vocabSize,
            embeddingDimension: config.embeddingDim,
            hiddenDimension: config.hiddenDim
        )
        return configuration.initialParameters(seed: UInt64(model.initialization?.seed ?? "42") ?? 42)
    }
}

/// Keeps a second server off the same data directory.
private struct DirectoryLock {
    private let descriptor: Int32

    init(directory: String) throws {
        descriptor = open(directory + "/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0, flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            throw ValidationError("another server uses \(directory), or it cannot be written")
        }
    }

    func release() { close(descriptor) }
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

    private struct UncheckedBox: @unchecked Sendable {
        // SAFETY: only cancelled, once, after the stream has ended; Dispatch sources may be cancelled from any thread.
        let value: [any DispatchSourceSignal]
        init(_ value: [any DispatchSourceSignal]) { self.value = value }
    }
}
