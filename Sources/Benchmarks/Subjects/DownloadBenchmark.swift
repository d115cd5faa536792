import ArgumentParser
import BenchmarkHarness
import Foundation
import WireFormat

/// A model's file from the page cache to several clients, against nginx with sendfile.
struct DownloadBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "download",
        abstract: "Models sent per second (needs nginx)."
    )

    @Option(help: "Values of the model, four bytes each.") var parameters = 25_000_000
    @Option(help: "Connections.") var connections = 4
    @Option(help: "Downloads of each connection in a repeat.") var downloads = 8
    @Option(help: "Repeats.") var repeats = 5

    func run() throws {
        let workspace = try ScratchDirectory()
        let nginx = try NginxPeer(workspace: workspace.path, port: NginxPeer.freePort())
        let model = try ServedModel(workspace: workspace.path, parameterCount: parameters, clientCount: 0)
        try FileManager.default.copyItem(atPath: model.file, toPath: nginx.files + "/model")
        let weights = Endpoints.weights(RunReference(model.run), VersionReference(0))
        let encodings = ["f32", "f16", "int8"]
        var peer: [Double] = []
        var ours: [String: [Double]] = [:]
        for turn in 0...repeats {
            let theirs = try fetch("/model", port: nginx.port, token: nil)
            if turn > 0 { peer.append(theirs.rate) }
            for encoding in encodings {
                let path = weights.with("encoding", encoding == "f32" ? nil : encoding).target
                let (rate, _) = try fetch(path, port: model.port, token: model.server.adminToken)
                if turn > 0 { ours[encoding, default: []].append(rate) }
            }
        }
        let size = "\(model.fileByteCount / 1_000_000) MB, \(connections) connections"
        let limit = MeasuredCase(benchmark: "download", name: "nginx sendfile, \(size)", unit: "bytes/s", values: peer)
        limit.report()
        for encoding in encodings {
            MeasuredCase(
                benchmark: "download",
                name: "GET weights \(encoding), model of \(size)",
                unit: "bytes/s",
                values: ours[encoding] ?? [],
                limit: limit.median,
                limitName: "nginx sendfile",
                required: encoding == "f32" ? 0.9 : nil
            ).report()
        }
    }

    private func fetch(_ path: String, port: Int, token: String?) throws -> (rate: Double, byteCount: Int) {
        let downloads = downloads
        let headers = token.map { ["Authorization": "Bearer \($0)"] } ?? [:]
        let sizes = NSLock()
        nonisolated(unsafe) var total = 0
        let seconds = try Connections.together(connections, port: port) { _, connection in
            for _ in 0..<downloads {
                let count = try connection.get(path, headers: headers)
                sizes.withLock { total += count }
            }
        }
        return (Double(total) / seconds, total)
    }
}
