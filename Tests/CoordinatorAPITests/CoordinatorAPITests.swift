import Coordination
import CoordinatorAPI
import Foundation
import HTTPServing
import HTTPTypes
import Logging
import Synchronization
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat
import Yams

@Suite(.timeLimit(.minutes(10)))
struct CoordinatorAPITests {
    /// A document of wrong fields only has an answer that is no longer than it is.
    @Test func noMoreThanAHundredWrongFieldsAreNamed() async throws {
        let service = try await Service()
        for count in [99, 100, 101, 20_000] {
            let fields = (0..<count).map { "\"\($0)\":0" }.joined(separator: ",")
            let answer = try await service.post("/v1/tokens", #"{"role": "viewer", "name": "n", \#(fields)}"#)
            let errors = try #require(answer.json["errors"] as? [Any])
            #expect(answer.status == 422 && errors.count == min(count, 100))
            let detail = try #require(answer.json["detail"] as? String)
            #expect(detail.hasPrefix(count > 100 ? "more than 100 fields are wrong" : "\(count) fields are wrong"))
        }
    }

    @Test func answersHaveTheDescribedFields() async throws {
        let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent().path + "/../../openapi.yaml"
        let document = try #require(
            try Yams.load(yaml: String(contentsOfFile: path, encoding: .utf8)) as? [String: Any]
        )
        let schemas = try #require((document["components"] as? [String: Any])?["schemas"] as? [String: [String: Any]])
        func expect(_ answer: [String: Any], _ schema: String) throws {
            let properties = Set(try #require(schemas[schema]?["properties"] as? [String: Any]).keys)
            let required = Set(schemas[schema]?["required"] as? [String] ?? [])
            #expect(Set(answer.keys).isSubset(of: properties), "\(schema): \(Set(answer.keys).subtracting(properties))")
            #expect(required.isSubset(of: answer.keys), "\(schema): \(required.subtracting(answer.keys))")
        }
        let service = try await Service()
        let (run, _, assignment) = try await service.assigned()
        try expect(assignment, "Assignment")
        try expect(try await service.call("GET", "/v1/runs/\(run)", token: service.admin).json, "Run")
        try expect(try await service.call("GET", "/v1/runs/\(run)/rounds/1", token: service.admin).json, "Round")
        try expect(try await service.call("GET", "/v1/runs/\(run)/models/0", token: service.admin).json, "ModelVersion")
        try expect(try await service.call("GET", "/v1/runs/\(run)/curves", token: service.admin).json, "Curves")
        try expect(try await service.call("GET", "/v1/populations/p", token: service.admin).json, "Population")
        try expect(try await service.call("GET", "/v1/runs/x", token: service.admin).json, "Problem")
        let clients =
            try await service.call("GET", "/v1/clients", token: service.admin).json["items"] as? [[String: Any]]
        try expect(try #require(clients?.first), "Client")
    }

    @Test func wrongUpdatesAreRefusedByCodeAndLeaveNoUpdateBehind() async throws {
        let service = try await Service()
        func file(_ values: [Float], name: String = "w", metadata: [String: String] = [:]) -> [UInt8] {
            let layout = ParameterLayout([.init(name: name, shape: [2, 2])])
            let named = Service.base(Service.layout, metadata)
            return Array(SafetensorsWriter.encode(ParameterVector(layout: layout, values: values), metadata: named))
        }
        let good = file([1, 2, 3, 4])
        let plain = ParameterVector(layout: Service.layout, values: [1, 2, 3, 4])
        let nameless = Array(SafetensorsWriter.encode(plain))
        let cases: [([UInt8], String, [String: String])] = [
            (file([1, 2, 3, .nan]), "not_finite", [:]), (file([1, 2, 3, 65]), "value_out_of_range", [:]),
            (file([1, 2, 3, 4], name: "v"), "tensor_mismatch", [:]), (Array(good.dropLast()), "tensor_mismatch", [:]),
            ([], "tensor_mismatch", [:]), (file([1, 2, 3, 4], metadata: ["kind": "weights"]), "kind_mismatch", [:]),
            (file([1, 2, 3, 4], metadata: ["base": "00"]), "base_mismatch", [:]),
            (file([1, 2, 3, 4], metadata: ["num_examples": "-3"]), "metadata_invalid", [:]),
            (file([1, 2, 3, 4], metadata: ["num_examples": "1000000000001"]), "metadata_invalid", [:]),
            (file([1, 2, 3, 4], metadata: ["num_tokens": "5"]), "weight_unit_mismatch", [:]),
            (file([1, 2, 3, 4], metadata: ["hit1": "2"]), "metrics_implausible", [:]),
            (file([1, 2, 3, 4], metadata: ["nll": "nan"]), "metrics_implausible", [:]),
            (nameless, "base_missing", [:]),
            (good, "digest_mismatch", ["Content-Digest": "sha-256=:\(Data(count: 32).base64EncodedString()):"]),
        ]
        for (body, code, headers) in cases {
            let service = try await Service()
            let (run, token, assignment) = try await service.assigned()
            let url = try #require(assignment["update_url"] as? String)
            let answer = try await service.call("PUT", url, token: token, body, headers)
            #expect(answer.status == 422 && answer.code == code, "\(code): \(answer.status) \(answer.code)")
            let round = try await service.call("GET", "/v1/runs/\(run)/rounds/1", token: service.admin).json
            #expect(round["accepted"] as? Int == 0)
            #expect(service.coordinator.blobs.spoolNames().isEmpty)
        }
        // After a wrong digest the same assignment still takes the right bytes, once and again; then no others.
        let (_, token, assignment) = try await service.assigned()
        let url = try #require(assignment["update_url"] as? String)
        _ = try await service.call("PUT", url, token: token, good, cases[cases.count - 1].2)
        #expect(try await service.call("PUT", url, token: token, good).status == 200)
        #expect(try await service.call("PUT", url, token: token, good).status == 200)
        let other = try await service.call("PUT", url, token: token, file([4, 3, 2, 1]))
        #expect(other.status == 409 && other.code == "update_differs")
    }

    @Test func everyBodyIsReadStrictly() async throws {
        let service = try await Service()
        let (run, token, assignment) = try await service.assigned()
        let id = try #require(assignment["id"] as? String)
        let enrollment = try #require(
            try await service.post("/v1/populations/p/enrollment-tokens", #"{"max_uses": 9}"#).json["token"] as? String
        )
        let targets = [
            ("/v1/populations", service.admin), ("/v1/populations/p/enrollment-tokens", service.admin),
            ("/v1/runs", service.admin), ("/v1/clients", enrollment), ("/v1/checkins", token),
            ("/v1/assignments/\(id)/failure", token),
        ]
        for (target, token) in targets {
            for body in [
                #"{"bogus": 1}"#, "[", "[]", "7", "", #"{"name": {"a": []}, "runs": 3, "code": 1, "max_uses": "x"}"#,
            ] {
                // An empty body stands for an empty object, which some calls take.
                if body.isEmpty && ["/v1/clients", "/v1/checkins"].contains(target) { continue }
                let answer = try await service.post(target, token: token, body)
                #expect(
                    answer.status == 422 && answer.code == "invalid_document",
                    "\(target) \(body): \(answer.status)"
                )
            }
            let media = try await service.call("POST", target, token: token, [1], ["Content-Type": "text/csv"])
            #expect(media.status == 415)
            let oversized = [UInt8](repeating: 32, count: (1 << 20) + 1)
            #expect(try await service.call("POST", target, token: token, oversized).status == 413)
        }
        for action in ["start", "resume"] {
            #expect(try await service.post("/v1/runs/\(run)/\(action)").status == 409)
        }
        #expect(try await service.call("PUT", "/v1/runs/\(run)/model", token: service.admin, [1]).status == 409)
        #expect(try await service.call("GET", "/v1/runs?limit=0", token: service.admin).status == 400)
        #expect(try await service.call("GET", "/v1/runs?cursor=-1", token: service.admin).status == 400)
        #expect(try await service.call("GET", "/v1/runs/\(run)/rounds/99", token: service.admin).status == 404)
        #expect(try await service.call("GET", "/readyz", token: nil).status == 200)
    }

    @Test func theLedgerCanBeVerifiedByAnOutsider() async throws {
        let service = try await Service()
        _ = try await service.post("/v1/populations", #"{"name": "p", "budget": {"epsilon": 8, "delta": 1e-5}}"#)
        let specification = RunFile.sample {
            $0.cohort.goal = 2
            $0.privacy += ["mode": "central", "noise_multiplier": 1]
        }.text
        let run = try #require(try await service.post("/v1/runs", specification).json["id"] as? String)
        let model = Array(SafetensorsWriter.encode(ParameterVector(zeros: Service.layout)))
        _ = try await service.call("PUT", "/v1/runs/\(run)/model", token: service.admin, model)
        _ = try await service.post("/v1/runs/\(run)/start")
        _ = try await service.post("/v1/runs/\(run)/cancel")
        let answer = try await service.call("GET", "/v1/populations/p/ledger?format=jsonl", token: service.admin)
        var previous = String(repeating: "0", count: 64)
        var head = previous
        func sha256(_ lines: [String]) -> String { Secrets.sha256(Array(lines.joined(separator: "\n").utf8)) }
        var states: [String] = []
        for line in String(decoding: answer.bytes, as: UTF8.self).split(separator: "\n") {
            let row = try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
            let created = try Date.ISO8601FormatStyle(includingFractionalSeconds: true).parse(
                try #require(row["created_at"] as? String)
            )
            let number = "\(row["population_number"] as? Int ?? 0)"
            #expect(row["format"] as? Int == 2 && row["population_previous_hash"] as? String == head)
            let fields: [String] = [
                "martlet-ledger-row/2", row["population_id"] as? String ?? "", number, row["run_id"] as? String ?? "",
                "\(row["round"] as? Int ?? 0)", "\(row["attempt"] as? Int ?? 0)", row["state"] as? String ?? "",
                row["event"] as? String ?? "", "\(Int((created.timeIntervalSince1970 * 1000).rounded()))",
            ]
            head = sha256(["martlet-ledger-head", head, number, sha256(fields)])
            let hash = sha256(["martlet-ledger/2", previous, "\(row["sequence"] as? Int ?? 0)", head])
            previous = try #require(row["row_hash"] as? String)
            #expect(hash == previous)
            states.append(fields[6])
        }
        // The budget itself, then the charge.
        #expect(states == ["committed", "reserved", "released"])
    }

    @Test func readinessIsTriedOnTheDiskOnceASecondAtMost() async throws {
        let service = try await Service()
        func status() async throws -> Int { try await service.call("GET", "/readyz", token: nil).status }
        #expect(try await status() == 200)
        let spool = service.directory.path + "/spool"
        try FileManager.default.moveItem(atPath: spool, toPath: spool + "-away")
        #expect(try await status() == 200)
        for seconds in [1.0, -1000] {
            service.clock.advance(by: seconds)
            #expect(try await status() == 503)
        }
        try FileManager.default.moveItem(atPath: spool + "-away", toPath: spool)
        // A failure is an answer for a second too.
        #expect(try await status() == 503)
        service.clock.advance(by: 1)
        #expect(try await status() == 200)
    }

    @Test func weightsHonourRangesAndTags() async throws {
        let service = try await Service()
        let (run, token, _) = try await service.assigned()
        let target = "/v1/runs/\(run)/models/0/weights"
        let whole = try await service.call("GET", target, token: token)
        #expect(whole.status == 200)
        let tag = try #require(whole.headers[.eTag])
        #expect(try await service.call("GET", target, token: token, [], ["If-None-Match": tag]).status == 304)
        for (range, expected) in [
            ("bytes=0-3", 0..<4), ("bytes=8-", 8..<whole.bytes.count),
            ("bytes=-5", (whole.bytes.count - 5)..<whole.bytes.count),
        ] {
            let part = try await service.call("GET", target, token: token, [], ["Range": range])
            #expect(part.status == 206 && part.bytes == Array(whole.bytes[expected]))
        }
        #expect(try await service.call("GET", target, token: token, [], ["Range": "bytes=99999-"]).status == 416)
        #expect(try await service.call("GET", "/v1/runs/\(run)/models/latest/weights", token: token).status == 307)
        #expect(try await service.call("GET", target, token: nil).status == 401)
    }

    @Test func eventsAreStreamedFromTheLastIdOn() async throws {
        let service = try await Service()
        let (run, _, _) = try await service.assigned()
        let accept = ["Accept": "application/json"]
        let page = try await service.call("GET", "/v1/events?limit=3", token: service.admin, [], accept)
        #expect((page.json["items"] as? [[String: Any]])?.count == 3 && page.json["next_cursor"] as? String == "3")
        let all = try await service.call("GET", "/v1/events?run=\(run)", token: service.admin, [], accept)
        let items = try #require(all.json["items"] as? [[String: Any]])
        #expect(items.allSatisfy { $0["run"] as? String == run })
        let states = items.filter { $0["type"] as? String == "run" }.map {
            ($0["data"] as? [String: Any])?["state"] as? String
        }
        #expect(states == ["created", "running"])
        // The stream would go on for ever: the server's stop ends it, after what is stored has been sent.
        async let streamed = service.call("GET", "/v1/events?after=2", token: service.admin)
        try await wait(for: "a stream of events") { await service.coordinator.listenerCount > 0 }
        _ = try await service.post("/v1/runs/\(run)/pause")
        await service.coordinator.stopServing()
        let text = String(decoding: try await streamed.bytes, as: UTF8.self)
        let ids = text.split(separator: "\n").filter { $0.hasPrefix("id: ") }.compactMap { Int($0.dropFirst(4)) }
        #expect(ids.first == 3 && ids == Array(3..<(3 + ids.count)), "\(text)")
        #expect(text.contains("event: run\ndata: {") && text.contains("\"state\":\"paused\""), "\(text)")
        for bad in ["x", "-1"] {
            let answer = try await service.call("GET", "/v1/events", token: service.admin, [], ["Last-Event-ID": bad])
            #expect(answer.status == 400)
        }
        #expect(try await service.call("GET", "/v1/events?run=run_x", token: service.admin).status == 404)
    }

    /// Text with bytes after it that are none.
    private static func bytes(_ text: String, _ rest: [UInt8] = [], _ end: String = "") -> [UInt8] {
        var bytes = Array(text.utf8)
        bytes += rest
        bytes += Array(end.utf8)
        return bytes
    }

    private static let ambiguousDocuments: [(String, [UInt8], String)] = [
        ("application/json", bytes(#"{"name": "p",\n"name": "q"}"#), "line 1, column 14"),
        (
            "application/json", bytes("{\"name\": \"p\",\n \"name\": \"q\"}"),
            "line 2, column 2: the name \"name\" comes twice"
        ),
        ("application/json", bytes(#"{"name": "p",}"#), "line 1, column 14"),
        ("application/json", bytes("", [0xFF, 0xFE, 0x7B, 0, 0x7D, 0]), "line 1, column 1"),
        ("application/yaml", bytes("name: p\nname: q\n"), "twice"),
        // A repaired text would be another document than the one that was sent.
        ("application/yaml", bytes("name: p", [0xC3]), "line 1 is not UTF-8"),
        ("application/yaml", bytes("name: ", [0xFF, 0xC0, 0xAF]), "line 1 is not UTF-8"),
        ("application/json", bytes(#"{"name": ""#, [0xFF], "\"}"), "line 1, column 11"),
    ]

    /// One document, one meaning: what two readers may take differently is refused with its place.
    @Test(arguments: ambiguousDocuments)
    func ambiguousDocumentsAreRefusedWithTheirPlace(_ type: String, _ body: [UInt8], _ place: String) async throws {
        let service = try await Service()
        let answer = try await service.call(
            "POST",
            "/v1/populations",
            token: service.admin,
            body,
            ["Content-Type": type]
        )
        #expect(answer.status == 422 && answer.code == "invalid_document", "\(answer)")
        #expect(String(decoding: answer.bytes, as: UTF8.self).replacing("\\\"", with: "\"").contains(place))
        let populations = try await service.call("GET", "/v1/populations", token: service.admin)
        #expect((populations.json["items"] as? [Any])?.isEmpty == true)
    }

    @Test func aClientSeesItsOwnWorkOnly() async throws {
        let service = try await Service()
        let (run, _, assignment) = try await service.assigned()
        let id = try #require(assignment["id"] as? String)
        let enrollment = try #require(
            try await service.post("/v1/populations/p/enrollment-tokens", #"{"max_uses": 1}"#).json["token"] as? String
        )
        let stranger = try #require(try await service.post("/v1/clients", token: enrollment).json["token"] as? String)
        #expect(try await service.post("/v1/clients", token: enrollment).code == "enrollment_exhausted")
        #expect(try await service.call("GET", "/v1/assignments/\(id)", token: stranger).status == 404)
        #expect(try await service.call("GET", "/v1/runs/\(run)/models/0/weights", token: stranger).status == 403)
    }
}
