import Dispatch
import Testing

@testable import HTTPServing

/// The state of a loop belongs to its queue, and every entry checks that it is there.
struct QueueRuleTests {
    @Test func aCallFromAnotherThreadTraps() async {
        await #expect(processExitsWith: .failure) {
            let loop = try EventLoop(index: 0)
            loop.stopListening()
        }
        await #expect(processExitsWith: .failure) {
            let loop = try EventLoop(index: 0)
            let other = try EventLoop(index: 1)
            other.queue.sync { loop.forEachConnection { _ in } }
        }
    }

    @Test func aCallOnTheQueueIsTaken() async throws {
        let loop = try EventLoop(index: 0)
        loop.queue.sync { loop.stopListening() }
    }

    @Test func aBucketThatNeverHoldsATokenIsRefused() async {
        await #expect(processExitsWith: .failure) { _ = RateLimiter.Rate(perSecond: 1, burst: 0.5) }
        await #expect(processExitsWith: .failure) { _ = RateLimiter.Rate(perSecond: 0, burst: 1) }
    }
}
