import Coordination
import CoordinatorAPI
import Foundation
import HTTPServing
import Logging
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// Analytics runs over the API: what a device may send, and what an operator reads.
struct AnalyticsRoutesTests {
    /// A service that makes zeros of two counts, or an empty trie.
    private func service(
        _ specification: String
    ) async throws -> (service: Service, run: String, device: String, work: [String: Any]) {
        let service = try await Service(makeInitialModel: { model in
            guard model.architecture != "votes" else { return PrefixTrie(levelCount: 10, nodeLimit: 50).vector }
            return ParameterVector(zeros: .init([.init(name: "counts", shape: [model.candidates.count])]))
        })
        let budget = specification.contains("central") || specification.contains("votes")
        let population = budget ? #"{"name": "p", "budget": {"epsilon": 100, "delta": 1e-5}}"# : #"{"name": "p"}"#
        _ = try await service.post("/v1/populations", population)
        let answer = try await service.post("/v1/runs", specification)
        let run = try #require(answer.json["id"] as? String, "\(answer.json)")
        let enrollment = try #require(
            try await service.post("/v1/populations/p/enrollment-tokens", #"{"max_uses": 400}"#).json["token"]
                as? String
        )
        var devices: [String] = []
        for _ in 0..<(specification.contains("votes") ? 20 : 1) {
            devices.append(
                try #require(try await service.post("/v1/clients", token: enrollment).json["token"] as? String)
            )
        }
        #expect(try await service.post("/v1/runs/\(run)/start").status == 200)
        for device in devices {
            let answer = try await service.post("/v1/checkins", token: device)
            guard let work = answer.json["assignment"] as? [String: Any] else { continue }
            return (service, run, device, work)
        }
        Issue.record("nobody was given work")
        return (service, run, "", [:])
    }

    private let histogram = RunFile.sample(of: .analytics) {
        $0.cohort.goal = 1
        $0.analytics += ["method": "histogram", "candidates": ["yes", "no", "maybe"], "words_per_client": 2]
    }.text

    private func put(
        _ vector: ParameterVector,
        _ service: Service,
        _ work: [String: Any],
        _ device: String
    ) async throws -> Service.Answer {
        let url = try #require(work["update_url"] as? String)
        let model = try #require(work["model"] as? [String: Any])
        let metadata = ["base": try #require(model["sha256"] as? String)]
        let plain = SafetensorsWriter.encode(vector, metadata: metadata)
        let update = Array(SafetensorsWriter.padded(plain, to: work["update_bytes"] as? Int ?? 0))
        return try await service.call("PUT", url, token: device, update)
    }

    @Test func countsBecomeWordsInBothForms() async throws {
        let (service, run, device, work) = try await service(histogram)
        #expect(work["kind"] as? String == "analyze" && work["update_tensors"] == nil)
        let layout = ParameterLayout([.init(name: "counts", shape: [3])])
        let sent = try await put(.init(layout: layout, values: [1, 0, 1]), service, work, device)
        #expect(sent.status == 200, "\(sent.json)")
        try await service.waitForEnd(of: run)
        let path = "/v1/runs/\(run)/models/latest/words"
        let words = try await service.call("GET", path, token: service.admin)
        let items = try #require(words.json["items"] as? [[String: Any]])
        #expect(
            items.map { $0["word"] as? String } == ["maybe", "yes"] && items.allSatisfy { $0["count"] as? Double == 1 }
        )
        #expect(words.json["hidden"] as? Int == 1 && words.json["version"] as? Int == 1)
        let page = try await service.call("GET", path + "?limit=1&minimum_count=0", token: service.admin)
        #expect((page.json["items"] as? [Any])?.count == 1 && page.json["next_cursor"] as? String == "1")
        let text = try await service.call("GET", path + "?format=txt", token: service.admin)
        #expect(String(decoding: text.bytes, as: UTF8.self) == "maybe\nyes\n")
        #expect(try await service.call("GET", path + "?minimum_count=x", token: service.admin).status == 400)
        #expect(try await service.call("GET", path, token: device).status == 403)
    }

    @Test(arguments: [
        [Float](arrayLiteral: 1, 1, 1), [Float](arrayLiteral: 0.5, 0, 0), [Float](arrayLiteral: -1, 0, 0),
    ])
    func stuffedCountsAreRefusedAndTheSlotIsFree(_ values: [Float]) async throws {
        let (service, run, device, work) = try await service(histogram)
        let layout = ParameterLayout([.init(name: "counts", shape: [3])])
        let answer = try await put(.init(layout: layout, values: values), service, work, device)
        #expect(answer.status == 422 && answer.code == "invalid_counts", "\(answer.json)")
        let round = try await service.call("GET", "/v1/runs/\(run)/rounds/1", token: service.admin).json
        #expect(
            round["rejected"] as? Int == 1 && round["accepted"] as? Int == 0 && round["kind"] as? String == "analytics"
        )
    }

    @Test func aDeviceVotes() async throws {
        let (service, _, device, work) = try await service(
            RunFile.sample(of: .analytics) {
                $0.rounds = 10
                $0.analytics += ["method": "votes", "prefix_limit": 50]
                $0.cohort.goal = 15
                $0.privacy.noise_multiplier = 2
            }.text
        )
        // The device is told what it needs to charge itself: noise, threshold, and how often it may vote.
        let privacy = try #require(work["privacy"] as? [String: Any])
        #expect(
            privacy["mechanism"] as? String == "gaussian_sparse_histogram"
                && privacy["noise_multiplier"] as? Double == 2
        )
        #expect(privacy["threshold"] as? Double ?? 0 > 11 && work["max_participations"] as? Int == 10)
        #expect((work["update_tensors"] as? [[String: Any]])?.first?["name"] as? String == "vote")
        let answer = try await put(.init(layout: PrefixTrie.voteLayout, values: [0, 97]), service, work, device)
        #expect(answer.status == 200, "\(answer.json)")
    }

    @Test func onlyVotesAreTakenForVotes() throws {
        let path = try TemporaryDirectory().path + "-vote"
        defer { try? FileManager.default.removeItem(atPath: path) }
        func code(_ values: [Float]) throws -> String? {
            let vote = ParameterVector(layout: PrefixTrie.voteLayout, values: values)
            try SafetensorsWriter.encode(vote).write(to: URL(fileURLWithPath: path))
            do {
                try AnalyticsAdmission.check(path, .vote(placeLimit: 50))
                return nil
            } catch let error as CoordinationError {
                return error.code
            }
        }
        for good: [Float] in [[0, 97], [-1, 0], [49, 0x10_FFFF], [3, 0]] { #expect(try code(good) == nil, "\(good)") }
        let bad: [[Float]] = [
            [0, 0xD800], [50, 97], [0.5, 97], [-1, 97], [0, 2e6], [0, .nan], [.infinity, 97], [0, 10],
        ]
        for values in bad { #expect(try code(values) == "invalid_vote", "\(values)") }
    }
}
