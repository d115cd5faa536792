import Coordination
import Crypto
import Foundation
import HTTPServing
import HTTPTypes
import Tensors
import TestBenches
import TestSupport
import Testing

/// What is refused because of how it travels is refused before the body, and costs nobody's assignment.
@Suite(.timeLimit(.minutes(10)))
struct TransportRefusalTests {
    @Test func aCompressedBodyIsRefusedOnEveryRouteBeforeItIsRead() async throws {
        let service = try await Service()
        let (run, token, assignment) = try await service.assigned()
        let id = try #require(assignment["id"] as? String)
        let update = try #require(assignment["update_url"] as? String)
        let staff = service.admin
        let routes: [(method: String, path: String, token: String)] = [
            ("POST", "/v1/populations", staff), ("POST", "/v1/populations/p/enrollment-tokens", staff),
            ("POST", "/v1/clients", token), ("POST", "/v1/checkins", token), ("POST", "/v1/runs", staff),
            ("POST", "/v1/runs?dry_run=true", staff), ("PUT", "/v1/runs/\(run)/model", staff),
            ("POST", "/v1/runs/\(run)/models/0/metrics", staff), ("POST", "/v1/tokens", staff), ("PUT", update, token),
            ("PATCH", update, token), ("POST", "/v1/assignments/\(id)/heartbeat", token),
            ("POST", "/v1/assignments/\(id)/failure", token), ("PATCH", "/v1/clients/x", token),
        ]
        for (method, path, token) in routes {
            for coding in ["gzip", "br, identity", "X-Own"] {
                let answer = try await service.call(
                    method,
                    path,
                    token: token,
                    [0x1F, 0x8B, 8],
                    ["Content-Encoding": coding, "Upload-Offset": "0"]
                )
                #expect(answer.status == 415 && answer.code == "unsupported_media_type", "\(method) \(path) \(answer)")
                #expect(answer.headers[.acceptEncoding] == "identity")
                #expect((answer.json["detail"] as? String)?.contains(coding.prefix(4)) == true)
            }
        }
        // The work lives on, and identity is no coding.
        let state = try await service.call("GET", "/v1/assignments/\(id)", token: token).json["state"] as? String
        #expect(state == "assigned")
        let file = Service.update([1, 2, 3, 4])
        #expect(
            try await service.call("PUT", update, token: token, file, ["Content-Encoding": "Identity"]).status == 200
        )
    }

    /// Each is what a network or a proxy does to a good update; the same assignment then takes the good one.
    @Test func whatTheNetworkDidToAnUpdateNeverRejectsItsAssignment() async throws {
        let service = try await Service()
        let (run, token, assignment) = try await service.assigned()
        let url = try #require(assignment["update_url"] as? String)
        let file = Service.update([1, 2, 3, 4])
        let digest = "sha-256=:\(Data(SHA256.hash(data: file)).base64EncodedString()):"
        let cut = Array(file.dropLast(3))
        let cases: [(method: String, body: [UInt8], fields: [String: String], status: Int)] = [
            ("PUT", cut, ["Content-Digest": digest], 422), ("PUT", file, ["Content-Type": "text/html"], 415),
            ("PUT", [UInt8](repeating: 0, count: 3 << 20), [:], 413), ("PUT", file, ["Content-Encoding": "gzip"], 415),
            ("PATCH", file, ["Upload-Offset": "7"], 409),
            ("PATCH", cut, ["Upload-Offset": "0", "Upload-Complete": "?1", "Repr-Digest": digest], 422),
            ("PATCH", file, ["Upload-Offset": "0", "Content-Type": "text/html"], 415),
        ]
        for (method, body, fields, status) in cases {
            let answer = try await service.call(method, url, token: token, body, fields)
            #expect(answer.status == status, "\(method) \(fields): \(answer.status) \(answer.json)")
        }
        let round = try await service.call("GET", "/v1/runs/\(run)/rounds/1", token: service.admin).json
        #expect(round["rejected"] as? Int == 0)
        #expect(try await service.call("PUT", url, token: token, file, ["Content-Digest": digest]).status == 200)
    }

    @Test func eventStreamsTellProxiesNotToGatherThem() async throws {
        let service = try await Service()
        let request = try ServerRequest(
            method: "GET",
            rawTarget: "/v1/events",
            headers: [.authorization: "Bearer \(service.admin)", .accept: "text/event-stream"],
            body: MemoryBody([]),
            requestID: "test"
        )
        let response = await service.router.handle(request)
        let name = try #require(HTTPField.Name("X-Accel-Buffering"))
        #expect(response.status == 200 && response.headers[name] == "no")
    }

    @Test func aFirstModelThatIsNotFiniteIsRefusedWithItsPlace() async throws {
        let service = try await Service()
        _ = try await service.post("/v1/populations", #"{"name": "p"}"#)
        let run = try #require(
            try await service.post(
                "/v1/runs",
                RunFile.sample { $0.cohort.goal = 2 }.text
            ).json["id"] as? String
        )
        for bad in [Float.nan, .infinity, -.infinity] {
            let model = SafetensorsWriter.encode(ParameterVector(layout: Service.layout, values: [1, 2, bad, 4]))
            let answer = try await service.call("PUT", "/v1/runs/\(run)/model", token: service.admin, Array(model))
            #expect(answer.status == 422 && answer.code == "not_finite", "\(answer.json)")
            let detail = answer.json["detail"] as? String
            #expect(detail == "the model holds a NaN or an infinity: tensor 'w', element 2")
        }
        #expect(service.coordinator.blobs.spoolNames().isEmpty)
        let good = SafetensorsWriter.encode(ParameterVector(layout: Service.layout, values: [1, 2, 3e38, 4]))
        #expect(try await service.call("PUT", "/v1/runs/\(run)/model", token: service.admin, Array(good)).status == 201)
    }

    @Test func sumsThatCannotBeAreRefusedAndTheUnitIsTheRuns() async throws {
        let service = try await Service()
        _ = try await service.post("/v1/populations", #"{"name": "p"}"#)
        let specification = RunFile.sample {
            $0.cohort += ["goal": 3, "minimum": 1]
            $0.aggregation.weight_unit = "tokens"
        }.text
        let run = try #require(try await service.post("/v1/runs", specification).json["id"] as? String)
        let model = Array(SafetensorsWriter.encode(ParameterVector(zeros: Service.layout)))
        _ = try await service.call("PUT", "/v1/runs/\(run)/model", token: service.admin, model)
        _ = try await service.post("/v1/runs/\(run)/start")
        let enrollment = try #require(
            try await service.post("/v1/populations/p/enrollment-tokens", #"{"max_uses": 2}"#).json["token"] as? String
        )
        for (metadata, code) in [
            (["num_examples": "5"], "weight_unit_mismatch"), (["num_tokens": "1000000000000"], ""),
        ] {
            let token = try #require(try await service.post("/v1/clients", token: enrollment).json["token"] as? String)
            let work = try await service.post("/v1/checkins", token: token).json["assignment"] as? [String: Any]
            #expect(work?["weight_unit"] as? String == "tokens" && work?["example_cap"] == nil)
            let url = try #require(work?["update_url"] as? String)
            let answer = try await service.call("PUT", url, token: token, Service.update([1, 1, 1, 1], metadata))
            #expect(answer.code == code, "\(answer.json)")
        }
    }
}
