import Foundation
import MartletClient
import Synchronization
import WireFormat

/// The demo's server and fleets, as processes that never outlive it unless asked to.
final class DemoProcesses: Sendable {
    private struct State {
        var server: Process?
        var fleets: [Process] = []
    }

    private let directory: String
    private let state = Mutex(State())

    init(directory: String) {
        self.directory = directory
    }

    /// Starts the server on a free port and waits until it answers.
    func startServer() async throws -> String {
        let data = directory + "/server"
        let process = try start(["serve", "--data-dir", data, "--listen", "127.0.0.1:0"], log: "server.log")
        state.withLock { $0.server = process }
        let deadline = ContinuousClock.now + .seconds(20)
        while ContinuousClock.now < deadline {
            if let url = try? String(contentsOfFile: data + "/address", encoding: .utf8), process.isRunning {
                try "\(process.processIdentifier)\n".write(toFile: data + "/pid", atomically: true, encoding: .utf8)
                return url.trimmingCharacters(in: .whitespacesAndNewlines)
            }
            guard process.isRunning else { break }
            try await Task.sleep(for: .milliseconds(50))
        }
        throw Failure("the server did not start; see \(directory)/server.log")
    }

    /// Divides the clients among processes.
    func startFleets(count: Int, clientCount: Int, server: String, token: String, text: String?, seed: UInt64) throws {
        for index in 0..<count {
            let first = clientCount * index / count
            let size = clientCount * (index + 1) / count - first
            guard size > 0 else { continue }
            var arguments = [
                "fleet", "--server", server, "--enrollment-token", token, "--first", String(first), "--clients",
                String(size), "--state-dir", directory + "/fleet-\(index)", "--seed", String(seed), "--width", "8",
                "--json",
            ]
            if let text { arguments += ["--text", text, "--hold-out"] }
            let process = try start(arguments, log: "fleet-\(index).log")
            state.withLock { $0.fleets.append(process) }
        }
    }

    /// Fails when the server or every fleet has stopped.
    func checkRunning() throws {
        let (server, fleets) = state.withLock { ($0.server?.isRunning ?? false, $0.fleets.contains { $0.isRunning }) }
        guard server else { throw Failure("the server stopped; see \(directory)/server.log") }
        guard fleets else {
            throw Failure("all fleets stopped before the run was complete; see \(directory)/fleet-0.log")
        }
    }

    /// Stops the fleets and clears away their clients' states; what they did stays.
    func stopFleets() {
        let fleets = state.withLock { $0.fleets }
        stop(fleets)
        for index in fleets.indices { try? FileManager.default.removeItem(atPath: directory + "/fleet-\(index)") }
    }

    /// What the fleets that have stopped did together, by their own last words.
    func fleetProgress() throws -> Fleet.Progress {
        var total = Fleet.Progress()
        for index in state.withLock({ $0.fleets }).indices {
            let path = directory + "/fleet-\(index).log"
            let lines = try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n")
            guard let line = lines.last(where: { $0.hasPrefix("{\"accepted\"") }) else {
                throw Failure("a fleet did not say what it did; see \(path)")
            }
            let progress = try WireCoding.decode(Fleet.Progress.self, from: Data(line.utf8))
            total.accepted += progress.accepted
            total.bytesUp += progress.bytesUp
            total.bytesDown += progress.bytesDown
        }
        return total
    }

    func stopAll() {
        stopFleets()
        stop(state.withLock { $0.server.map { [$0] } ?? [] })
    }

    private func stop(_ processes: [Process]) {
        for process in processes where process.isRunning { process.terminate() }
        for process in processes { process.waitUntilExit() }
    }

    private func start(_ arguments: [String], log: String) throws -> Process {
        let path = directory + "/" + log
        _ = FileManager.default.createFile(atPath: path, contents: nil)
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        process.arguments = arguments
        let output = FileHandle(forWritingAtPath: path)
        process.standardOutput = output
        process.standardError = output
        process.standardInput = FileHandle.nullDevice
        try process.run()
        return process
    }
}
