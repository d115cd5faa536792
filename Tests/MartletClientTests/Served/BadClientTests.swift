import Coordination
import CoordinatorAPI
import Foundation
import HTTPServing
import LocalTraining
import Logging
import MartletClient
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// Devices with bad data, bad models and bad programs: each is reported by name, sends nothing, and frees its place.
@Suite(.timeLimit(.minutes(10)))
struct BadClientTests {
    /// What one device does wrong.
    struct Case: Sendable, CustomTestStringConvertible {
        var name: String
        /// The server's word for it.
        var code: String
        /// What the operator reads, among others.
        var words: String
        var texts: [String] = []
        var minimumRecords = 1
        var config = #"{"vocab_size": 52, "embedding_dim": 4, "hidden_dim": 8}"#
        var architecture = "cifg-lstm"
        /// Tensors that the server publishes, where they are not the configuration's.
        var published: ParameterLayout?
        var testDescription: String { name }
    }

    private static let good = ["hello there, how are you?", "see you at noon tomorrow"]
    private static let cases = [
        Case(name: "an empty shard", code: "no_data", words: "fewer than the run's"),
        Case(
            name: "a client of one line where three are asked for",
            code: "no_data",
            words: "fewer than the run's 3 records are left",
            texts: ["hello there, how are you?"],
            minimumRecords: 3
        ),
        Case(
            name: "text that is no UTF-8",
            code: "no_data",
            words: "fewer than the run's",
            texts: [String(decoding: [0x68, 0x69, 0xFF, 0xFE, 0xC0, 0x80, 0xF5] as [UInt8], as: UTF8.self)]
        ),
        Case(
            name: "a vocabulary that is not the model's",
            code: "training_failed",
            words: "vocab_size: must be 52",
            texts: good,
            config: #"{"vocab_size": 60, "embedding_dim": 4, "hidden_dim": 8}"#
        ),
        Case(
            name: "arithmetic that is not known",
            code: "training_failed",
            words: "rope_scaling",
            texts: good,
            config: #"""
                {"vocab_size": 52, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
                 "num_attention_heads": 2, "rope_scaling": {"type": "linear", "factor": 2}}
                """#,
            architecture: "decoder"
        ),
        Case(
            name: "a checkpoint without a tensor",
            code: "training_failed",
            words: "lacks tensor 'output.bias'",
            texts: good,
            published: ParameterLayout(layout.tensors.filter { $0.name != "output.bias" })
        ),
        Case(
            name: "a checkpoint with one too many",
            code: "training_failed",
            words: "has tensor 'zeta'",
            texts: good,
            published: ParameterLayout(layout.tensors + [.init(name: "zeta", shape: [1])])
        ),
    ]
    private static let layout =
        CIFGLSTMConfiguration(vocabularySize: 52, embeddingDimension: 4, hiddenDimension: 8).layout

    @Test(arguments: cases) func badDataAndModelsAreReportedByName(_ item: Case) async throws {
        let layout = item.published ?? Self.layout
        let service = try await Service(makeInitialModel: { _ in ParameterVector(zeros: layout) })
        let run = try await service.started {
            $0.model += ["architecture": item.architecture, "config": try JSONValue.parse(Array(item.config.utf8))]
            $0.training.local.learning_rate = 0.1
            $0.training.data += ["minimum_records": item.minimumRecords]
        }
        try await expectFailure(service, run, DeviceTrainer(texts: item.texts), item.code, item.words)
    }

    /// One line is little and no fault: it trains.
    @Test func aClientOfOneLineTrains() async throws {
        let service = try await Service(makeInitialModel: { _ in
            CIFGLSTMConfiguration(vocabularySize: 52, embeddingDimension: 4, hiddenDimension: 8)
                .initialParameters(seed: 1)
        })
        let run = try await service.started {
            $0.model.architecture = "cifg-lstm"
            $0.model.config += ["vocab_size": 52, "embedding_dim": 4, "hidden_dim": 8]
        }
        let (client, server) = try await service.servedClient(DeviceTrainer(texts: ["hello there, how are you?"]))
        #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: run, round: 1))
        await server.shutdown(gracePeriod: .seconds(5))
    }

    /// What an external program does wrong, as the plain Python example with one line changed or as a shell command.
    private static let programs: [(name: String, rule: String, old: String?, new: String)] = [
        ("hangs", "deadline", nil, "trap '' TERM; sleep 3600"), ("crashes", "signal", nil, "kill -SEGV $$"),
        ("leaves nothing", "metrics", nil, "true"),
        (
            "writes NaN", "finite", "if not all(map(math.isfinite, weight + [bias])):",
            "bias = float('nan')\n    if False:"
        ),
        ("writes another shape", "shape", "\"weight\": (model[\"weight\"][0],", "\"weight\": ([1, 3],"),
        (
            "writes half a file", "file", "struct.pack(\"<Q\", len(text)) + text + data)",
            "(struct.pack(\"<Q\", len(text)) + text + data)[:-5])"
        ),
    ]

    @Test(.slow, arguments: programs.indices) func badProgramsAreReportedByTheirRule(_ index: Int) async throws {
        let program = Self.programs[index]
        let service = try await Service()
        let run = try await service.started(prepare: { run in
            let model = ParameterVector(
                zeros: ParameterLayout([.init(name: "weight", shape: [3]), .init(name: "bias", shape: [1])])
            )
            let bytes = Array(SafetensorsWriter.encode(model))
            let answer = try await service.call("PUT", "/v1/runs/\(run)/model", token: service.admin, bytes)
            #expect(answer.status == 201)
        })
        var command = program.new
        if let old = program.old {
            let source =
                URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
                .deletingLastPathComponent()
                .deletingLastPathComponent().path + "/Examples/trainers/plain-python/trainer.py"
            let text = try String(contentsOfFile: source, encoding: .utf8)
            try #require(text.contains(old))
            let path = service.directory.path + "/trainer.py"
            try text.replacing(old, with: program.new).write(toFile: path, atomically: true, encoding: .utf8)
            command = "python3 " + path
        }
        let data = service.directory.path + "/rows.csv"
        try "a,b,c,y\n1,0,0,1\n0,1,0,0\n".write(toFile: data, atomically: true, encoding: .utf8)
        let trainer = ExternalTrainer(
            .init(
                command: command,
                data: data,
                workDirectory: service.directory.path + "/work",
                timeLimitSeconds: program.name == "hangs" ? 0.2 : 600,
                gracePeriodSeconds: 0.3
            )
        )
        try await expectFailure(service, run, trainer, "training_failed", "external trainer: \(program.rule)")
    }

    // MARK: -

    private func expectFailure(
        _ service: Service,
        _ run: String,
        _ trainer: any LocalTrainer,
        _ code: String,
        _ words: String
    ) async throws {
        let (client, server) = try await service.servedClient(trainer)
        #expect(try await client.participateOnce(waitSeconds: 0) == .ended(code: code))
        let round = try await service.call("GET", "/v1/runs/\(run)/rounds/1", token: service.admin).json
        #expect(round["failed"] as? Int == 1 && round["accepted"] as? Int == 0 && round["bytes_up"] as? Int == 0)
        let history = try await service.call(
            "GET",
            "/v1/runs/\(run)/rounds/1/history?assignments=true",
            token: service.admin
        )
        let text = String(decoding: history.bytes, as: UTF8.self)
        #expect(text.contains(words), "\(text)")
        // Nothing was sent, nothing is left to be sent, and the round's one place is free for the next device.
        let spool = service.coordinator.blobs.spoolNames()
        #expect(spool.isEmpty, "\(spool)")
        for name in ["pending.json", "update.safetensors"] {
            #expect(!FileManager.default.fileExists(atPath: service.directory.path + "/client/" + name))
        }
        // Nor has the device's own ledger an entry: nothing left it.
        let ledger = try Data(contentsOf: URL(fileURLWithPath: service.directory.path + "/client/ledger.json"))
        let entries = try JSONSerialization.jsonObject(with: ledger) as? [String: Any]
        #expect((entries?["events"] as? [Any])?.isEmpty == true, "\(entries ?? [:])")
        let enrollment = try await service.post("/v1/populations/p/enrollment-tokens", #"{"max_uses": 9}"#)
        let next = try await service.post("/v1/clients", token: enrollment.json["token"] as? String)
        let work = try await service.post("/v1/checkins", token: next.json["token"] as? String)
        #expect(work.json["assignment"] != nil, "\(work.json)")
        await server.shutdown(gracePeriod: .seconds(5))
    }
}

extension Service {
    /// A population `p` and a started run with one place.
    fileprivate func started(
        _ change: (inout RunFile) throws -> Void = { _ in },
        prepare: (String) async throws -> Void = { _ in }
    ) async throws -> String {
        _ = try await post("/v1/populations", #"{"name": "p"}"#)
        let created = try await post(
            "/v1/runs",
            try RunFile.sample {
                $0.cohort += ["goal": 1, "minimum": 1, "over_selection": 1]
                try change(&$0)
            }.text
        )
        let run = try #require(created.json["id"] as? String, "\(created.json)")
        try await prepare(run)
        #expect(try await post("/v1/runs/\(run)/start").status == 200)
        return run
    }
}
