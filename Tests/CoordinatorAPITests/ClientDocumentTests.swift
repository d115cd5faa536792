import Coordination
import Foundation
import Logging
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

@Suite(.timeLimit(.minutes(10)))
struct ClientDocumentTests {
    /// What clients say again and again is short; what they send beyond is not read.
    @Test func documentsOfClientsAreShort() async throws {
        let service = try await Service()
        let (_, token, assignment) = try await service.assigned()
        let id = try #require(assignment["id"] as? String)
        let padding = String(repeating: " ", count: 70_000)
        for path in [
            "/v1/checkins", "/v1/assignments/\(id)/heartbeat", "/v1/assignments/\(id)/failure",
            "/v1/tokens/current/rotate",
        ] {
            let answer = try await service.post(path, token: token, "{" + padding + "}")
            #expect(answer.status == 413, "\(path): \(answer.status)")
        }
        let own = try await service.call("GET", "/v1/clients", token: service.admin).json["items"] as? [[String: Any]]
        let client = try #require(own?.first?["id"] as? String)
        let body = Array(("{" + padding + "}").utf8)
        #expect(try await service.call("PATCH", "/v1/clients/\(client)", token: token, body).status == 413)
        // A thousand runs fit.
        let runs = (0..<1000).map { "\"run_\(String(repeating: "0", count: 20))\($0)\"" }.joined(separator: ",")
        #expect(try await service.post("/v1/checkins", token: token, "{\"runs\": [\(runs)]}").status == 201)
    }

    /// Sums are held in memory, and are no update for which room is asked.
    @Test(arguments: [(60_000, 422), (70_000, 413)])
    func sumsOfAnEvaluationAreShort(_ length: Int, _ status: Int) async throws {
        let service = try await Service()
        let (token, assignment) = try await evaluating(service)
        let url = try #require(assignment["update_url"] as? String)
        let body = Array(("{" + String(repeating: " ", count: length) + "}").utf8)
        let fields = ["Content-Type": "application/json"]
        #expect(try await service.call("PUT", url, token: token, body, fields).status == status)
    }

    /// A client that holds the assignment to measure the only version of a run.
    private func evaluating(_ service: Service) async throws -> (token: String, assignment: [String: Any]) {
        _ = try await service.post("/v1/populations", #"{"name": "p"}"#)
        let specification = RunFile.sample {
            $0.cohort += ["goal": 1, "minimum": 1]
            $0.evaluation += ["every": 1, "cohort_goal": 1]
        }.text
        let run = try #require(try await service.post("/v1/runs", specification).json["id"] as? String)
        let model = Array(SafetensorsWriter.encode(ParameterVector(zeros: Service.layout)))
        #expect(try await service.call("PUT", "/v1/runs/\(run)/model", token: service.admin, model).status == 201)
        #expect(try await service.post("/v1/runs/\(run)/start").status == 200)
        let enrollment = try #require(
            try await service.post("/v1/populations/p/enrollment-tokens", #"{"max_uses": 1}"#).json["token"] as? String
        )
        let token = try #require(try await service.post("/v1/clients", token: enrollment).json["token"] as? String)
        func checkIn() async throws -> [String: Any]? {
            try await service.post("/v1/checkins", token: token).json["assignment"] as? [String: Any]
        }
        let training = try #require(try await checkIn())
        let url = try #require(training["update_url"] as? String)
        let update = Service.update([1, 2, 3, 4], ["num_examples": "1"])
        #expect(try await service.call("PUT", url, token: token, update).status == 200)
        var patience = Patience("the evaluation")
        while true {
            if let work = try await checkIn(), work["update_url"] as? String != url { return (token, work) }
            try await patience.pause()
        }
    }

    /// A population's name is in paths, a card, tables and pages; it is checked when it is made.
    @Test(arguments: ["a/b", "..", "a\u{202E}b", "-x", "\u{9B}31m"])
    func namesThatNoCommandCanSayAreRefused(_ name: String) async throws {
        let service = try await Service()
        let body = try JSONSerialization.data(withJSONObject: ["name": name])
        let answer = try await service.call("POST", "/v1/populations", token: service.admin, Array(body))
        #expect(answer.status == 422 && answer.code == "invalid_document")
    }

    /// A limit on requests under what signs of life need ends clients at work, one lease after the other.
    @Test(arguments: [(0.14, true), (0.16, false)])
    func aRateUnderTheSignsOfLifeIsAProblem(_ rate: Double, _ isTooLow: Bool) async throws {
        let service = try await Service()
        _ = try await service.assigned()
        var configuration = CoordinatorConfiguration(dataDirectory: service.directory.path)
        configuration.clientRequestsPerSecond = rate
        let restarted = try await Coordinator(
            configuration: configuration,
            store: service.store,
            logger: .init(label: "test")
        )
        let problem = try await restarted.overview(role: .viewer).problems.first { $0.code == "signs_of_life_limited" }
        #expect((problem != nil) == isTooLow, "\(problem as Any)")
        #expect(problem.map { $0.detail.contains("rate.client_per_s") } ?? true)
    }

    @Test func aLowerLimitThanAnOpenRunNeedsIsAProblem() async throws {
        let service = try await Service()
        _ = try await service.assigned()
        var configuration = CoordinatorConfiguration(dataDirectory: service.directory.path)
        configuration.modelByteLimit = 10
        let restarted = try await Coordinator(
            configuration: configuration,
            store: service.store,
            logger: .init(label: "test")
        )
        let found = SettingsCheck.findings(try service.store.load(), blobs: restarted.blobs, modelByteLimit: 10)
        #expect(found.map(\.code) == ["updates_too_large"] && found.first?.remedy != nil)
        #expect(SettingsCheck.findings(try service.store.load(), blobs: restarted.blobs, modelByteLimit: 1000).isEmpty)
        let problem = try await restarted.overview(role: .viewer).problems.first { $0.code == "updates_too_large" }
        #expect(problem?.severity == "error" && problem?.detail.contains("limits.model_bytes") == true)
        #expect(
            try await service.coordinator.overview(role: .viewer).problems.allSatisfy {
                $0.code != "updates_too_large"
            }
        )
    }
}
