import Foundation
import TestSupport
import Testing

#if canImport(Glibc)
import Glibc
#endif

/// A server that is asked to stop stops, whenever that is; how often the moments are tried is bounded, and so is each wait.
@Suite(.timeLimit(.minutes(30)), .serialized)
struct SignalTests {
    /// A server that is started and not waited for.
    private func launch(_ directory: String) throws -> (process: Process, output: Pipe) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: ServerProcess.binary)
        process.arguments = ["serve", "--data-dir", directory, "--listen", "127.0.0.1:0"]
        let output = Pipe()
        process.standardOutput = output
        process.standardError = FileHandle.nullDevice
        try process.run()
        return (process, output)
    }

    /// Whether it ends within ten minutes, which no machine needs; else it is killed.
    private func ends(_ process: Process) -> Bool {
        if process.ends(within: 600) { return true }
        kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
        return false
    }

    /// The moment between the announcement and whatever waits for signals: a signal that was lost there was lost for ever.
    @Test(.slow, arguments: [SIGTERM, SIGINT])
    func aSignalRightAfterTheAnnouncementIsHeard(_ signal: Int32) throws {
        let directory = try TemporaryDirectory()
        for attempt in 0..<12 {
            let (process, output) = try launch(directory.path + "/data")
            let line = String(decoding: output.fileHandleForReading.availableData, as: UTF8.self)
            kill(process.processIdentifier, signal)
            try #require(line.contains("listening on"), "\(attempt): \(line)")
            #expect(ends(process), "start \(attempt) was asked to stop, and went on")
            #expect(process.terminationReason == .exit && process.terminationStatus == 0, "start \(attempt)")
        }
    }

    /// While the server starts it ends at once, in order from where it takes signals, and leaves nothing that stops the next one.
    @Test(.slow) func aSignalWhileTheServerStartsEndsIt() throws {
        let directory = try TemporaryDirectory()
        let data = directory.path + "/data"
        // Each is asked at a later moment of its start.
        for step in 0..<12 {
            let (process, _) = try launch(data)
            RealTime.pass(Double(step) * 0.015, because: "a process starts")
            kill(process.processIdentifier, SIGTERM)
            #expect(ends(process), "a start was asked to stop after \(step * 15) ms, and went on")
            let isOrderly = process.terminationReason == .exit && process.terminationStatus == 0
            #expect(isOrderly || process.terminationStatus == SIGTERM, "\(process.terminationStatus)")
        }
        let server = try ServerProcess.start(dataDirectory: data)
        #expect(try server.curl(server.url + "/readyz").contains("HTTP/1.1 200"))
        server.stop(SIGTERM)
    }

    /// What reloads a certificate ends no server that has none, at no moment.
    @Test func aHangUpEndsNoServer() throws {
        let directory = try TemporaryDirectory()
        let server = try ServerProcess.start(dataDirectory: directory.path)
        for _ in 0..<5 { kill(server.process.processIdentifier, SIGHUP) }
        #expect(try server.curl(server.url + "/readyz").contains("HTTP/1.1 200"))
        server.stop(SIGTERM)
        #expect(server.process.terminationReason == .exit && server.process.terminationStatus == 0)
    }
}
