import Coordination
import Foundation
import Tensors
import TestSupport
import Testing
import WireFormat

/// What is known about an update of a private run: its file's receipt, and nothing once its round has ended.
@Suite(.timeLimit(.minutes(10)))
struct ReceiptTests {
    private static let privacy = #"{"mode": "central", "noise_multiplier": 2}"#
    private static let cohort = #"{"goal": 2, "minimum": 1, "over_selection": 1, "max_participations": 3}"#

    @Test func otherBytesAreRefusedWhileTheUpdateIsThereAndEveryRepeatIsFinalAfterwards() async throws {
        let bench = try await PrivateBench()
        try await bench.begin(
            privacy: Self.privacy,
            cohort: Self.cohort,
            extra: #", "aggregation": {"weighting": "examples", "example_cap": 9}"#,
            clients: 2
        )
        let assignment = try #require(try await bench.checkIn(0)["assignment"] as? [String: Any])
        let id = try #require(assignment["id"] as? String)
        let first = try await bench.upload(0, assignment, [1, 2, 3, 4], metadata: ["num_examples": "7"])
        let digest = try #require(first.json["sha256"] as? String)
        #expect(first.status == 200 && first.json["compared"] as? Bool == true && digest.count == 64)
        let spool = bench.coordinator.blobs.spoolNames().sorted()
        #expect(spool == [id + ".receipt", id + ".update"])
        let receipt = try Data(contentsOf: URL(fileURLWithPath: bench.coordinator.blobs.spoolPath(spool[0])))
        #expect(String(decoding: receipt, as: UTF8.self).contains(digest))
        let again = try await bench.upload(0, assignment, [1, 2, 3, 4], metadata: ["num_examples": "7"])
        #expect(again.status == 200 && again.json["sha256"] as? String == digest)
        let other = try await bench.upload(0, assignment, [4, 3, 2, 1])
        #expect(other.status == 409 && other.json["code"] as? String == "update_differs")
        // Also after a restart: the file is all that is known.
        try await bench.restart()
        #expect(try await bench.upload(0, assignment, [4, 3, 2, 1]).status == 409)

        _ = try await bench.play([1], [0, 0, 0, 0])
        #expect(bench.coordinator.blobs.spoolNames().isEmpty)
        for values: [Float] in [[1, 2, 3, 4], [4, 3, 2, 1]] {
            let late = try await bench.upload(0, assignment, values)
            #expect(late.status == 200 && late.json["compared"] as? Bool == false)
            #expect(late.json["state"] as? String == "accepted")
            let base = try #require((assignment["model"] as? [String: Any])?["sha256"] as? String)
            let update = ParameterVector(layout: bench.layout, values: values)
            let sent = SafetensorsWriter.padded(
                SafetensorsWriter.encode(update, metadata: ["base": base]),
                to: try #require(assignment["update_bytes"] as? Int)
            )
            #expect(late.json["sha256"] as? String == Secrets.sha256(Array(sent)))
        }
        #expect(bench.coordinator.blobs.spoolNames().isEmpty, "what came late is not kept either")
        let state = try bench.store.load()
        #expect(state.assignments.allSatisfy { $0.updateSha256 == nil && $0.updateBytes == nil })
        #expect(state.assignments.allSatisfy { $0.exampleCount == nil && $0.metrics == nil && $0.progress == nil })
        #expect(state.rounds.allSatisfy { $0.bytesUp == 0 && $0.exampleCount == 0 })
        #expect(state.clients.allSatisfy { $0.secondsPerAssignment == nil && $0.stepsPerSecond == nil })
    }

    /// An upload that stands still when its round ends leaves nothing, however the round ends.
    @Test(arguments: ["commit", "cancel"])
    func partsOfAnUpdateGoWithTheirRound(end: String) async throws {
        let bench = try await PrivateBench()
        let cohort = Self.cohort.replacing(#""over_selection": 1,"#, with: #""over_selection": 1.5,"#)
        try await bench.begin(privacy: Self.privacy, cohort: cohort, clients: 3)
        let assignment = try #require(try await bench.checkIn(2)["assignment"] as? [String: Any])
        let id = try #require(assignment["id"] as? String)
        _ = try await bench.play([0], [1, 2, 3, 4])
        // As a request leaves it that stopped in the middle.
        let path = bench.coordinator.blobs.spoolPath(id + ".partial")
        try Data(repeating: 7, count: 40).write(to: URL(fileURLWithPath: path))
        #expect(bench.coordinator.blobs.spoolNames().count == 3)
        if end == "commit" {
            _ = try await bench.play([1], [0, 0, 0, 0])
        } else {
            try #require(try await bench.post("/v1/runs/\(bench.run)/cancel").status == 200)
        }
        #expect(bench.coordinator.blobs.spoolNames().isEmpty)
    }

    /// Sizes are what was planned: what really came may depend on what a client has.
    @Test func bytesUpArePlannedSizesTimesTheirNumber() async throws {
        let bench = try await PrivateBench()
        try await bench.begin(privacy: Self.privacy, cohort: Self.cohort, clients: 2)
        _ = try await bench.play([0], [1, 2, 3, 4])
        func bytes() async throws -> Int {
            let rounds = try await bench.call("GET", "/v1/runs/\(bench.run)/rounds").json["items"] as? [[String: Any]]
            return try #require(rounds?.last?["bytes_up"] as? Int)
        }
        let one = try await bytes()
        #expect(one > 16 && one % 8 == 0)
        _ = try await bench.play([1], [1, 2, 3, 4])
        let two = try await bytes()
        #expect(two == 2 * one)
        let exposition = await bench.coordinator.metricsExposition()
        #expect(exposition.contains("martlet_update_bytes_total \(two)\n"))
    }

    @Test func aFailuresWordsAndAHeartbeatsProgressAreDropped() async throws {
        let bench = try await PrivateBench()
        try await bench.begin(privacy: Self.privacy, cohort: Self.cohort, clients: 2)
        let id = try #require((try await bench.checkIn(0)["assignment"] as? [String: Any])?["id"] as? String)
        _ = try await bench.post(
            "/v1/assignments/\(id)/heartbeat",
            token: bench.clients[0],
            #"{"phase": "uploading", "progress": 0.625}"#
        )
        #expect(try bench.store.load().assignments.first?.state == .assigned)
        let report = #"{"code": "no_data", "detail": "row 3 holds 'Jane Roe'"}"#
        #expect(try await bench.post("/v1/assignments/\(id)/failure", token: bench.clients[0], report).status < 300)
        let history = try await bench.call("GET", "/v1/runs/\(bench.run)/rounds/1/history?assignments=true").json
        let text = "\(history)"
        #expect(!text.contains("Jane") && !text.contains("no_data") && !text.contains("0.625"))
        #expect(try bench.store.load().assignments.first?.code == "training_failed")
    }
}
