import ArgumentParser
import BenchmarkHarness
import Foundation

/// Updates from the socket to the disk: hashed, judged, synced and counted, against nginx's `PUT`, which only writes.
struct IntakeBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "intake",
        abstract: "Updates taken per second, durable (needs nginx with its dav module)."
    )

    @Option(help: "Values of an update, four bytes each.") var parameters = 25_000_000
    @Option(help: "Connections.") var connections = 4
    @Option(help: "Uploads of each connection in a repeat.") var uploads = 2
    @Option(help: "Repeats.") var repeats = 5

    func run() throws {
        let workspace = try ScratchDirectory()
        let nginx = try NginxPeer(workspace: workspace.path, port: NginxPeer.freePort())
        let model = try ServedModel(
            workspace: workspace.path,
            parameterCount: parameters,
            clientCount: connections * uploads * (repeats + 1)
        )
        let idle = model.server.residentBytes
        var (peer, ours, disk): ([Double], [Double], [Double]) = ([], [], [])
        var processor: [Double] = []
        let bytes = Double(model.fileByteCount * connections * uploads)
        for turn in 0...repeats {
            // Taken in turn, each after a sync, so that one does not wait for what the other left to write.
            sync()
            let written = try putToNginx(nginx, model.file)
            sync()
            let direct = try writeDurably(model.file, to: workspace.path + "/direct")
            sync()
            let before = model.server.processorSeconds
            let taken = try putToServer(model, turn: turn)
            // The first turn warms up.
            guard turn > 0 else { continue }
            peer.append(bytes / written)
            disk.append(bytes / direct)
            ours.append(bytes / taken)
            processor.append(model.server.processorSeconds - before)
        }
        let size = "\(model.fileByteCount / 1_000_000) MB, \(connections) connections"
        var limit = MeasuredCase(benchmark: "intake", name: "nginx PUT, \(size)", unit: "bytes/s", values: peer)
        limit.report()
        MeasuredCase(
            benchmark: "intake",
            name: "the file written and synced by \(connections) threads, \(size)",
            unit: "bytes/s",
            values: disk
        ).report()
        limit = MeasuredCase(benchmark: "intake", name: "PUT update, durable, \(size)", unit: "bytes/s", values: ours)
        limit.limit = peer.sorted()[peer.count / 2]
        limit.limitName = "nginx PUT to a file, neither hashed nor synced"
        limit.required = 2
        limit.extra = [
            "share_of_disk": limit.median / disk.sorted()[disk.count / 2],
            "server_cpu_s_per_gb": processor.sorted()[processor.count / 2] / (bytes / 1e9),
            "server_peak_rss_above_idle_bytes": model.server.peakResidentBytes - idle,
        ]
        limit.report()
    }

    private func putToNginx(_ nginx: NginxPeer, _ file: String) throws -> Double {
        let (uploads, port) = (uploads, nginx.port)
        defer {
            for index in 0..<(connections * uploads) {
                try? FileManager.default.removeItem(atPath: nginx.files + "/put/\(index)")
            }
        }
        return try Connections.together(connections, port: port) { index, connection in
            for upload in 0..<uploads { try connection.put(file, to: "/put/\(index * uploads + upload)") }
        }
    }

    private func putToServer(_ model: ServedModel, turn: Int) throws -> Double {
        let (uploads, connections, clients, file) = (uploads, connections, model.clients, model.file)
        return try Connections.together(connections, port: model.port) { index, connection in
            for upload in 0..<uploads {
                let client = clients[(turn * connections + index) * uploads + upload]
                try connection.put(
                    file,
                    to: client.path,
                    headers: [
                        "Authorization": "Bearer \(client.token)", "Content-Type": "application/vnd.safetensors",
                    ]
                )
            }
        }
    }

    /// What the disk gives to somebody who has the bytes in memory.
    private func writeDurably(_ file: String, to path: String) throws -> Double {
        let data = try Data(contentsOf: URL(fileURLWithPath: file))
        let (uploads, connections) = (uploads, connections)
        defer {
            for index in 0..<(connections * uploads) { unlink(path + "-\(index)") }
        }
        return Stopwatch.seconds {
            DispatchQueue.concurrentPerform(iterations: connections) { index in
                for upload in 0..<uploads {
                    let descriptor = open(path + "-\(index * uploads + upload)", O_WRONLY | O_CREAT | O_TRUNC, 0o600)
                    data.withUnsafeBytes { raw in
                        var done = 0
                        while done < raw.count {
                            let count = write(
                                descriptor,
                                raw.baseAddress.map { $0 + done },
                                min(1 << 18, raw.count - done)
                            )
                            guard count > 0 else { break }
                            done += count
                        }
                    }
                    fdatasync(descriptor)
                    close(descriptor)
                }
            }
        }
    }
}
