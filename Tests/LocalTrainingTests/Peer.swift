import Foundation

/// Other implementations, in Python, where they are installed: tests that need one are skipped without it.
enum Peer {
    /// A Python that can import a module: that of `MARTLET_TEST_PYTHON`, else `python3`.
    static func python(importing modules: String...) -> String? {
        let candidates = [ProcessInfo.processInfo.environment["MARTLET_TEST_PYTHON"], "/usr/bin/python3"].compactMap {
            $0
        }
        return candidates.first { path in
            FileManager.default.isExecutableFile(atPath: path)
                && (try? run(path, "import " + modules.joined(separator: ", "), [])) != nil
        }
    }

    struct Failed: Error {
        var status: Int32
    }

    /// What the script prints.
    static func run(_ python: String, _ script: String, _ arguments: [String]) throws -> Data {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: python)
        process.arguments = ["-c", script] + arguments
        let output = Pipe()
        process.standardOutput = output
        process.standardError = FileHandle.nullDevice
        try process.run()
        let data = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else { throw Failed(status: process.terminationStatus) }
        return data
    }
}
