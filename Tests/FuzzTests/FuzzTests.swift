import FuzzTargets
import TestSupport
import Testing

/// A short run of every target; `swift run -c release Fuzz` runs them for as long as one likes.
@Suite(.timeLimit(.minutes(10)))
struct FuzzTests {
    @Test(.slow, arguments: FuzzRunner.targets.map { $0.name })
    func noCaseFindsAnything(_ name: String) async throws {
        let target = try #require(FuzzRunner.targets.first { $0.name == name })
        let report = try await FuzzRunner.run(target, cases: 0..<target.testCaseCount, seed: 1)
        // Input that is never taken tries the first check only.
        #expect(report.taken > report.cases / 200, "\(report)")
        #expect(report.taken < report.cases, "\(report)")
    }
}
