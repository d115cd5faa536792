import BenchmarkHarness
import Crypto
import Foundation
import Tensors
import WireFormat

/// A served run with a model of some size, and clients that each hold one assignment in its open round.
struct ServedModel {
    let server: ServedProcess
    let run: String
    /// An update file, with the model's own values.
    let file: String
    let fileByteCount: Int
    /// Each client's token and the path that its update goes to.
    private(set) var clients: [(token: String, path: String)] = []

    init(workspace: String, parameterCount: Int, clientCount: Int) throws {
        server = try ServedProcess(dataDirectory: workspace + "/data", arguments: ["--log-level", "error"])
        file = workspace + "/update.safetensors"
        let layout = ParameterLayout([.init(name: "w", shape: [parameterCount])])
        var generator = Xoshiro256StarStar(seed: 1)
        let values = (0..<parameterCount).map { _ in Float(Int(generator.next() >> 40)) * 0x1p-24 - 0.5 }
        let bytes = SafetensorsWriter.encode(ParameterVector(layout: layout, values: values))
        let update = SafetensorsWriter.encode(
            ParameterVector(layout: layout, values: values),
            metadata: ["base": SHA256.hash(data: bytes).map { String(format: "%02x", $0) }.joined()]
        )
        fileByteCount = update.count
        try bytes.write(to: URL(fileURLWithPath: file))
        try server.call(Endpoints.createPopulation(), #"{"name": "p"}"#)
        let specification = """
            {"population": "p", "rounds": 1, "model": {"architecture": "external"},
             "cohort": {"goal": \(max(1, clientCount) + 1), "minimum": 1, "over_selection": 1, "selection_timeout_s": 3600,
                        "report_timeout_s": 3600}}
            """
        guard let id = try server.call(Endpoints.createRun(), specification)["id"] as? String else {
            throw BenchmarkError("no run was made")
        }
        run = id
        try server.upload(file, to: Endpoints.putModel(RunReference(run)))
        try update.write(to: URL(fileURLWithPath: file))
        try server.call(Endpoints.startRun(RunReference(run)), "{}")
        let enrollment =
            try server.call(Endpoints.createEnrollmentToken("p"), #"{"max_uses": 10000}"#)["token"] as? String
        for _ in 0..<clientCount {
            let token = try server.call(Endpoints.register(), "{}", token: enrollment)["token"] as? String ?? ""
            let answer = try server.call(Endpoints.checkIn(), "{}", token: token)
            guard let path = (answer["assignment"] as? [String: Any])?["update_url"] as? String else {
                throw BenchmarkError("a client got no assignment: \(answer)")
            }
            clients.append((token, path))
        }
    }

    var port: Int { server.url.split(separator: ":").last.flatMap { Int($0) } ?? 0 }
}
