import Foundation
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

@testable import Coordination

struct DeclaredMetricsTests {
    /// 32 names of its own with each update would give the metrics' table as many columns.
    @Test func metricsThatTheRunFileDoesNotNameAreDropped() async throws {
        let bench = try await Bench(.memory)
        let (run, clients) = try await bench.startRun(
            try Bench.exactSpecification(rounds: 1) {
                $0.cohort += ["goal": 2, "minimum": 2]
                $0.metrics = ["mae"]
            },
            clients: 2
        )
        for (index, client) in clients.enumerated() {
            let work = try #require(try await Bench.assignment(bench.coordinator, client))
            var update = try await Bench.received(
                bench.coordinator,
                client,
                work.id,
                ParameterVector(zeros: Bench.layout),
                examples: 4
            )
            update.metrics = ["steps": 3, "seconds": 2, "nll": 8, "tokens": 4, "mae": 6]
            for name in 0..<27 { update.metrics["own_\(index)_\(name)"] = 1 }
            _ = try await bench.coordinator.finishUpdate(assignment: work.id, client: client, update)
        }
        _ = try await Bench.untilSettled(bench.coordinator, run)
        let version = try await bench.coordinator.model(run: run, version: "latest")
        let rates = try #require(version.metrics?["training"])
        #expect(rates.keys.sorted() == ["loss", "mae"])
        #expect(rates["mae"] == 12.0 / 8 && rates["loss"] == 2)
        let stored = try bench.store.load().assignments.compactMap(\.metrics)
        #expect(stored.count == 2 && stored.allSatisfy { !$0.contains("own_") && $0.contains("seconds") })
    }

    @Test func onlyNamesOfSumsAreTaken() {
        for names in [#"["A"]"#, #"["a b"]"#, #"[""]"#, "[1]", #"{"a": 1}"#] {
            #expect(throws: DocumentError.self) {
                try Bench.exactSpecification {
                    $0.cohort += ["goal": 2, "minimum": 2]
                    $0 += ["metrics": names]
                }
            }
        }
    }

    /// A name that older versions took is read as long as it is stored, and makes no new run.
    @Test func aStoredRunKeepsItsName() async throws {
        let bench = try await Bench(.memory)
        let (run, _) = try await bench.startRun(try Bench.specification(), clients: 1)
        var record = try #require(try bench.store.load().runs.first)
        record.name = "a/b\u{202E}"
        record.specification = record.specification.replacing("\"name\":\"run\"", with: "\"name\":\"a/b\u{202E}\"")
        try bench.store.commit([.run(record)])
        let restarted = try await bench.restarted()
        #expect(try await restarted.run(run).name == "a/b\u{202E}")
        var specification = try Bench.specification()
        specification.name = "a/b\u{202E}"
        await #expect(throws: DocumentError.self) {
            try await restarted.createRun(specification, initialModel: ParameterVector(zeros: Bench.layout))
        }
    }
}
