import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

@testable import Coordination

@Suite(.timeLimit(.minutes(10)))
struct CurveTests {
    @Test(arguments: [0, 1, 3, 4, 5, 99, 100, 101, 1000, 4096])
    func thinnedCurvesKeepTheirEndsAndExtremes(_ count: Int) throws {
        var generator = Xoshiro256StarStar(seed: UInt64(count) + 7)
        let points = (0..<count).map { (x: $0 * 3, y: Double(generator.next() % 1000) / 10) }
        for limit in [4, 7, 100, 500] {
            let thin = CurveThinning.thin(points, to: limit)
            #expect(thin.count <= max(limit, 0) && (count <= limit ? thin.count == count : thin.count > limit / 4))
            #expect(zip(thin, thin.dropFirst()).allSatisfy { $0.x < $1.x })
            #expect(thin.first?.x == points.first?.x && thin.last?.x == points.last?.x)
            #expect(thin.map(\.y).max() == points.map(\.y).max() && thin.map(\.y).min() == points.map(\.y).min())
            #expect(thin.allSatisfy { point in points[point.x / 3].y == point.y })
        }
    }

    @Test func curvesTellValuesTotalsAndTheBestVersion() async throws {
        let bench = try await Bench(.sqlite)
        let (run, clients) = try await bench.startRun(try Bench.specification(goal: 2, rounds: 3))
        let coordinator = bench.coordinator
        try await bench.measure(run, 0, ["accuracy": 0.1, "loss": 3])
        for (number, accuracy) in [(1, 0.4), (2, 0.7), (3, 0.6)] {
            bench.clock.advance(by: 1)
            for client in clients.prefix(2) {
                let work = try #require(try await Bench.assignment(coordinator, client))
                await coordinator.noteDownload(run: run, version: number - 1, byteCount: 50)
                _ = try await Bench.submit(coordinator, client, work.id, value: 1)
            }
            _ = try await Bench.untilSettled(coordinator, run)
            try await bench.measure(run, number, ["accuracy": accuracy, "loss": 2 - accuracy])
        }
        for coordinator in [coordinator, try await bench.restarted()] {
            let curves = try await coordinator.curves(run: run, points: 100)
            #expect(curves.throughRound == 3)
            func curve(_ name: String) -> [[Double]]? { curves.series.first { $0.name == name }?.points }
            #expect(curve("accuracy") == [[0, 0.1], [1, 0.4], [2, 0.7], [3, 0.6]])
            #expect(curve("bytes_down") == [[1, 100], [2, 100], [3, 100]])
            #expect(curve("epsilon") == nil && curve("seconds")?.count == 3)
            #expect(curves.best.map(\.version) == [2, 2] && curves.best.map(\.name) == ["accuracy", "loss"])
            #expect(curves.totals.bytesDown == 300 && curves.totals.attempts == 3 && curves.totals.abandoned == 0)
            let up = try #require(curve("bytes_up"))
            #expect(curves.totals.bytesUp == Int(up.reduce(0) { $0 + $1[1] }))
            #expect(try await coordinator.run(run).bestVersion == 2)
            #expect(try await coordinator.overview(role: .viewer).runs.first?.bestVersion == 2)
            #expect(try await coordinator.models(run: run).filter(\.isBest).map(\.version) == [2])
        }
    }
}

extension Bench {
    fileprivate func measure(_ run: String, _ version: Int, _ metrics: [String: Double]) async throws {
        _ = try await coordinator.reportMetrics(run: run, version: String(version), MetricsReport(metrics: metrics))
    }
}
