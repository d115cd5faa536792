import Synchronization
import TestSupport
import Testing
import WireFormat

@testable import Coordination

/// Claims of versions are made one at a time, beside the coordinator.
@Suite(.timeLimit(.minutes(10)))
struct ClaimDeskTests {
    private func place(_ count: Int) -> ClaimPlace { ClaimPlace(population: "p", rowCount: count) }

    private final class Counts: Sendable {
        private let state = Mutex((atWork: 0, most: 0, made: 0))
        var most: Int { state.withLock { $0.most } }
        var made: Int { state.withLock { $0.made } }

        func begin() {
            state.withLock {
                $0.atWork += 1
                $0.most = max($0.most, $0.atWork)
                $0.made += 1
            }
        }

        func end() { state.withLock { $0.atWork -= 1 } }
    }

    @Test("One claim is made at a time, and once for all who wait for it.")
    func oneAtATime() async throws {
        let (desk, counts) = (ClaimDesk(ArithmeticDesk()), Counts())
        let asking = (0..<60).map { number in
            let place = place(number % 20)
            return Task {
                try await Caller.$key.withValue("caller \(number % 20)") {
                    try await desk.claim(of: place) {
                        counts.begin()
                        for _ in 0..<20 { await Task.yield() }
                        counts.end()
                        return nil
                    }
                }
            }
        }
        for task in asking { #expect(try await task.value == nil) }
        // Whoever comes after a claim was made has it made again: to keep it is the budgets' part.
        #expect(counts.most == 1 && (20...60).contains(counts.made), "\(counts.most), \(counts.made)")
    }

    @Test("A claim that fails is no obstacle, and one caller has as many places as the desk gives it.")
    func busy() async throws {
        let desk = ClaimDesk(ArithmeticDesk())
        let (gate, open) = AsyncStream.makeStream(of: Void.self)
        let waiting = (0..<ArithmeticDesk.placesPerCaller).map { number in
            let place = place(number)
            return Task {
                try await desk.claim(of: place) {
                    for await _ in gate { break }
                    throw CancellationError()
                }
            }
        }
        try await wait(for: "the claims") { await desk.desk.waitingCount == ArithmeticDesk.placesPerCaller }
        let last = place(99)
        let error = await #expect(throws: CoordinationError.self) { try await desk.claim(of: last) { nil } }
        #expect(error?.code == "claims_busy" && error?.kind == .unavailable)
        open.finish()
        for task in waiting { _ = await task.result }
        #expect(try await desk.claim(of: last) { nil } == nil)
    }
}
