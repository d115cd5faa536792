import Foundation
import Synchronization

/// Another program: a peer that is measured beside us, or a load generator.
package struct Command {
    /// What a finished program gave.
    package struct Result {
        package let status: Int32
        package let output: String
    }

    private let process: Process

    /// Runs a program to its end.
    ///
    /// - Throws: ``BenchmarkError`` when it does not exist or ends with another status than 0.
    package static func run(_ arguments: [String], environment: [String: String] = [:]) throws -> Result {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: try find(arguments[0]))
        process.arguments = Array(arguments.dropFirst())
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        let output = Pipe()
        process.standardOutput = output
        process.standardError = output
        try process.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        guard process.terminationStatus == 0 else {
            throw BenchmarkError("\(arguments[0]) ended with status \(process.terminationStatus): \(text.suffix(500))")
        }
        return Result(status: process.terminationStatus, output: text)
    }

    /// Starts a program that runs until ``stop()``.
    package init(start arguments: [String]) throws {
        process = Process()
        process.executableURL = URL(fileURLWithPath: try Self.find(arguments[0]))
        process.arguments = Array(arguments.dropFirst())
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.standardError
        try process.run()
    }

    /// The system's number of the process.
    package var processID: Int32 { process.processIdentifier }

    /// Asks the program to end and waits for it.
    package func stop() {
        if process.isRunning { process.terminate() }
        process.waitUntilExit()
    }

    private static func find(_ name: String) throws -> String {
        if name.contains("/") { return name }
        let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"
        for directory in path.split(separator: ":").map(String.init) + ["/usr/sbin", "/sbin"] {
            let candidate = directory + "/" + name
            if FileManager.default.isExecutableFile(atPath: candidate) { return candidate }
        }
        throw BenchmarkError("\(name) is not installed")
    }
}

/// Why a benchmark could not be run.
package struct BenchmarkError: Error, CustomStringConvertible {
    package var description: String
    package init(_ description: String) { self.description = description }
}

/// A directory that goes with the benchmark.
package final class ScratchDirectory {
    package let path: String

    package init() throws {
        path = NSTemporaryDirectory() + "martlet-benchmark-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        // nginx's workers are another user.
        try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: path)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }
}
