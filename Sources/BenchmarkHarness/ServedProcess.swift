import Foundation
package import WireFormat

/// A Martlet server as users run it: the executable beside this one, in a data directory of its own.
package final class ServedProcess {
    package let url: String
    package let adminToken: String
    private let command: Command

    /// Starts the server and waits until it listens.
    package init(dataDirectory: String, arguments: [String] = []) throws {
        let binary = Self.binary
        guard FileManager.default.isExecutableFile(atPath: binary) else {
            throw BenchmarkError("build it first: swift build -c release --product martlet (looked for \(binary))")
        }
        let address = dataDirectory + "/address"
        // An earlier server's would be taken for this one's.
        try? FileManager.default.removeItem(atPath: address)
        command = try Command(
            start: [binary, "serve", "--data-dir", dataDirectory, "--listen", "127.0.0.1:0"] + arguments
        )
        var found: String?
        for _ in 0..<30_000 {
            found = try? String(contentsOfFile: address, encoding: .utf8)
            if found != nil { break }
            usleep(20_000)
        }
        guard let found else { throw BenchmarkError("the server did not start") }
        url = found.trimmingCharacters(in: .whitespacesAndNewlines)
        let token = try String(contentsOfFile: dataDirectory + "/admin-token", encoding: .utf8)
        adminToken = token.trimmingCharacters(in: .whitespacesAndNewlines)
    }

    deinit { stop() }

    /// Asks the server to end and waits for it.
    package func stop() { command.stop() }

    /// The most memory that was resident, in bytes.
    package var peakResidentBytes: Double { statusField("VmHWM") }
    /// The memory that is resident now, in bytes.
    package var residentBytes: Double { statusField("VmRSS") }

    /// User and system time so far, in seconds.
    package var processorSeconds: Double {
        let text = (try? String(contentsOfFile: "/proc/\(command.processID)/stat", encoding: .utf8)) ?? ""
        guard let end = text.lastIndex(of: ")") else { return 0 }
        let fields = text[end...].split(separator: " ")
        guard fields.count > 13, let user = Double(fields[12]), let system = Double(fields[13]) else { return 0 }
        return (user + system) / Double(sysconf(Int32(_SC_CLK_TCK)))
    }

    private func statusField(_ name: String) -> Double {
        let text = (try? String(contentsOfFile: "/proc/\(command.processID)/status", encoding: .utf8)) ?? ""
        let line = text.split(separator: "\n").first { $0.hasPrefix(name + ":") }
        return (line?.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first.flatMap { Double($0) } ?? 0)
            * 1024
    }

    /// Calls the API as the administrator and gives the answer's JSON.
    @discardableResult
    package func call<Body, Answer>(
        _ target: RequestTarget<Body, Answer>,
        _ json: String? = nil,
        token: String? = nil
    ) throws -> [String: Any] {
        var arguments = [
            "curl", "--silent", "--show-error", "--fail-with-body", "-X", target.method.rawValue, "-H",
            "Authorization: Bearer \(token ?? adminToken)",
        ]
        if let json { arguments += ["-H", "Content-Type: application/json", "-d", json] }
        let output = try Command.run(arguments + [url + target.target]).output
        return (try? JSONSerialization.jsonObject(with: Data(output.utf8))) as? [String: Any] ?? [:]
    }

    /// Sends a file.
    package func upload<Answer>(_ file: String, to target: RequestTarget<Octets, Answer>) throws {
        _ = try Command.run([
            "curl", "--silent", "--show-error", "--fail-with-body", "-H", "Authorization: Bearer \(adminToken)", "-H",
            "Content-Type: application/vnd.safetensors", "-T", file, url + target.target,
        ])
    }

    /// The `martlet` of the same build.
    package static let binary: String = {
        let path = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
        return (path as NSString).deletingLastPathComponent + "/martlet"
    }()
}
