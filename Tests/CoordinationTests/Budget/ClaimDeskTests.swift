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
        let (desk, counts) = (ClaimDesk(), Counts())
        let asking = (0..<60).map { number in
            let place = place(number % 20)
            return Task {
                try await desk.claim(of: place) {
                    counts.begin()
                    for _ in 0..<20 { await Task.yield() }
                    counts.end()
                    return nil
                }
            }
        }
        for task in asking { #expect(try await task.value == nil) }
        // Whoever comes after a claim was made has it made again: to keep it is the budgets' part.
        #expect(counts.most == 1 && (20...60).contains(counts.made), "\(counts.most), \(counts.made)")
    }

    @Test("Who asks for more than may wait is told to come again, and a claim that fails is no obstacle.")
    func busy() async throws {
        let desk = ClaimDesk()
        let (gate, open) = AsyncStream.makeStream(of: Void.self)
        let waiting = (0..<ClaimDesk.waitingLimit).map { number in
            let place = place(number)
            return Task {
                try await desk.claim(of: place) {
                    for await _ in gate { break }
                    throw CancellationError()
                }
            }
        }
        var patience = Patience("the claims")
        while await desk.waitingCount < ClaimDesk.waitingLimit { try await patience.pause() }
        let last = place(99)
        let error = await #expect(throws: CoordinationError.self) { try await desk.claim(of: last) { nil } }
        #expect(error?.code == "claims_busy" && error?.kind == .unavailable)
        open.finish()
        for task in waiting { _ = await task.result }
        #expect(try await desk.claim(of: last) { nil } == nil)
    }
}
