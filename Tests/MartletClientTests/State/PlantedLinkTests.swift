import Foundation
import LocalTraining
import MartletClient
import Synchronization
import TestSupport
import Testing
import UpdateCompression
import WireFormat

#if canImport(Glibc)
import Glibc
#endif

/// Links and pipes at the names of a state directory: nothing outside is read, written or waited for.
@Suite(.timeLimit(.minutes(10)))
struct PlantedLinkTests {
    /// What lies at a name that the client means to use.
    enum Planted: CaseIterable {
        case linkToFile, linkToNothing, linkToDirectory, pipe
    }

    private static let modes = ["topk", "scaffold", "local"]

    private static func server(_ mode: String, asked: @escaping @Sendable () -> Void = {}) -> RehearsalServer {
        RehearsalServer(
            mode: mode == "local" ? "local" : "none",
            interference: { _, _ in
                asked()
                return nil
            },
            change: { work, _ in
                if mode == "topk" { work.training.encoding = .topk }
                if mode == "scaffold" { work.training.algorithm = .scaffold }
            }
        )
    }

    /// All names that ever were in a device's directory while it took part, below it too; those that are made up are left out.
    private func names(_ mode: String) async throws -> Set<String> {
        let device = try RehearsalDevice()
        let seen = Mutex<Set<String>>([])
        let path = device.path
        let look: @Sendable () -> Void = {
            let names = (try? FileManager.default.subpathsOfDirectory(atPath: path)) ?? []
            seen.withLock { $0.formUnion(names.filter { !$0.contains(".tmp") }) }
        }
        let trainer = RehearsalTrainer { _ in look() }
        let server = Self.server(mode, asked: look)
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        do {
            let client = try device.client(server, trainer, models: path + "/models", failpoint: look)
            for _ in 0..<2 { _ = try await client.participateOnce(waitSeconds: 0) }
        }
        // A refusal of the server's ends an assignment, and is noted.
        server.state.withLock { $0.refusesSize = true }
        _ = try await device.client(server, trainer, models: path + "/models", failpoint: look).participateOnce(
            waitSeconds: 0
        )
        look()
        return seen.withLock { $0 }
    }

    @Test(.slow) func nothingOutsideIsTouched() async throws {
        var tried: Set<String> = []
        for mode in Self.modes {
            var all = try await names(mode)
            if tried.isEmpty { all.formUnion(["endings.old.jsonl", "ledger-head.json"]) }
            for name in all.subtracting(tried).sorted() {
                for planted in Planted.allCases { try await plant(planted, at: name, mode) }
            }
            tried.formUnion(all)
        }
        let known: Set = [
            "assignments.json", "attempt.json", "control-run_1.json", "control-run_1.waiting", "control.next",
            "credential.json", "endings.jsonl", "ledger.json", "lock", "models", "pending.json", "registration.json",
            "residual-run_1.f32", "residual.next", "update.safetensors",
        ]
        #expect(tried.isSuperset(of: known), "\(known.subtracting(tried)) were not there")
        #expect(tried.contains { $0.hasPrefix("models/") && $0.hasSuffix(".part") })
    }

    private func plant(_ planted: Planted, at name: String, _ mode: String) async throws {
        let device = try RehearsalDevice()
        let outside = device.directory.path + "/outside"
        let manager = FileManager.default
        try manager.createDirectory(atPath: outside + "/folder", withIntermediateDirectories: true)
        let secret = Data("nobody's business".utf8)
        try secret.write(to: URL(fileURLWithPath: outside + "/file"))
        // A client that has registered and has work half done, so that most names are opened and not only made.
        let server = Self.server(mode)
        let trainer = RehearsalTrainer()
        do {
            _ = try await device.client(server, trainer, models: device.path + "/models").participateOnce(
                waitSeconds: 0
            )
        }
        let path = device.path + "/" + name
        try? manager.removeItem(atPath: path)
        switch planted {
        case .linkToFile: #expect(symlink(outside + "/file", path) == 0)
        case .linkToNothing: #expect(symlink(outside + "/new", path) == 0)
        case .linkToDirectory: #expect(symlink(outside + "/folder", path) == 0)
        case .pipe: #expect(mkfifo(path, 0o600) == 0)
        }
        var words = ""
        do {
            let state = try ClientState(directory: device.path)
            _ = try state.subdirectory("models")
        } catch let error as ClientError {
            words = error.message
            #expect(
                error.code == "storage" && (error.message.contains("link") || error.message.contains("directory")),
                "\(error)"
            )
        }
        for _ in 0..<3 where words.isEmpty {
            do {
                let client = try device.client(server, trainer, models: device.path + "/models")
                if case .ended(let code) = try await client.participateOnce(waitSeconds: 0) {
                    #expect(
                        ["state_damaged", "storage", "cancelled", "ledger_forked"].contains(code.code),
                        "\(name): \(code)"
                    )
                }
            } catch let error as ClientError {
                #expect(["storage", "state_damaged"].contains(error.code), "\(name), \(planted): \(error)")
            }
        }
        let found = try manager.subpathsOfDirectory(atPath: outside).sorted()
        #expect(found == ["file", "folder"], "\(name), \(planted): \(found)")
        #expect(manager.contents(atPath: outside + "/file") == secret, "\(name), \(planted)")
        let sent = server.state.withLock { $0.sent.values.flatMap { $0 } }
        #expect(!sent.contains(secret), "\(name), \(planted)")
    }
}
