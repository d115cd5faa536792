import Foundation
import Testing

/// A script under `Tests/Python` that drives the built binary from outside.
enum PythonScript {
    /// Where Chromium is, or `nil`: tests of pages are skipped then.
    static let chromium: String? = ["chromium", "chromium-browser", "google-chrome"].lazy.compactMap(executable).first

    /// Whether a program is found on the path.
    static func isInstalled(_ name: String) -> Bool { executable(name) != nil }

    private static func executable(_ name: String) -> String? {
        let path = ProcessInfo.processInfo.environment["PATH"] ?? ""
        return path.split(separator: ":").map { "\($0)/\(name)" }.first {
            FileManager.default.isExecutableFile(atPath: $0)
        }
    }

    /// Runs a script and expects it to end well; what it printed is the failure's text.
    static func expectSuccess(_ name: String, _ arguments: [String]) throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        let script = ServerProcess.repository + "/Tests/Python/" + name
        process.arguments = [ServerProcess.python ?? "python3", script, ServerProcess.binary] + arguments
        var environment = ProcessInfo.processInfo.environment
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        process.environment = environment
        let output = Pipe()
        process.standardOutput = output
        process.standardError = output
        try process.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        #expect(process.terminationStatus == 0, "\(text)")
    }
}
