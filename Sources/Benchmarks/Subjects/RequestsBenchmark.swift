import ArgumentParser
import BenchmarkHarness
import Foundation
import WireFormat

/// Small requests: `GET /healthz` and a check-in that is answered "no work", against nginx's static file of 1 kB.
struct RequestsBenchmark: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "requests",
        abstract: "Requests a second on kept connections (needs wrk and nginx)."
    )

    @Option(help: "Connections.") var connections = 64
    @Option(help: "Seconds of one repeat.") var seconds = 3
    @Option(help: "Repeats.") var repeats = 5

    func run() async throws {
        let workspace = try ScratchDirectory()
        let nginx = try NginxPeer(workspace: workspace.path, port: NginxPeer.freePort())
        try Data(repeating: 97, count: 1024).write(to: URL(fileURLWithPath: nginx.files + "/1k"))
        let server = try ServedProcess(dataDirectory: workspace.path + "/data", arguments: ["--log-level", "error"])
        try server.call(Endpoints.createPopulation(), #"{"name": "p"}"#)
        let enrollment =
            try server.call(Endpoints.createEnrollmentToken("p"), #"{"max_uses": 1}"#)["token"] as? String
        let client = try server.call(Endpoints.register(), "{}", token: enrollment)["token"] as? String
        let script = workspace.path + "/checkin.lua"
        try """
        wrk.method = "POST"
        wrk.body = "{}"
        wrk.headers["Content-Type"] = "application/json"
        wrk.headers["Authorization"] = "Bearer \(client ?? "")"
        """.write(toFile: script, atomically: true, encoding: .utf8)
        var static1k: [Double] = []
        var health: [Double] = []
        var checkin: [Double] = []
        _ = try load(server.url + Endpoints.health().path, seconds: 1)
        for _ in 0..<repeats {
            // Taken in turn, so that a slow spell of the machine meets all three.
            static1k.append(try load(nginx.url + "/1k", seconds: seconds))
            health.append(try load(server.url + Endpoints.health().path, seconds: seconds))
            checkin.append(try load(server.url + Endpoints.checkIn().path, seconds: seconds, script: script))
        }
        var limit = MeasuredCase(benchmark: "requests", name: "nginx static 1 kB", unit: "requests/s", values: static1k)
        limit.extra = ["connections": connections]
        limit.report()
        for (name, values) in [
            ("GET \(Endpoints.health.template)", health),
            ("POST \(Endpoints.checkIn.template), no work, token checked", checkin),
        ] {
            MeasuredCase(
                benchmark: "requests",
                name: name,
                unit: "requests/s",
                values: values,
                limit: limit.median,
                limitName: "nginx static 1 kB",
                required: 0.6,
                extra: ["connections": connections, "required_value": 10_000]
            ).report()
        }
    }

    private func load(_ url: String, seconds: Int, script: String? = nil) throws -> Double {
        var arguments = ["wrk", "-t1", "-c\(connections)", "-d\(seconds)s"]
        if let script { arguments += ["-s", script] }
        let output = try Command.run(arguments + [url]).output
        if output.contains("Non-2xx") { throw BenchmarkError("some answers were errors: \(output)") }
        let line = output.split(separator: "\n").first { $0.contains("Requests/sec") }
        guard let value = line?.split(separator: " ").last.flatMap({ Double($0) }) else {
            throw BenchmarkError("wrk said: \(output)")
        }
        return value
    }
}
