import Synchronization

/// Token buckets by key, in a table that cannot grow without bound.
package final class RateLimiter: Sendable {
    /// How fast, and how much at once.
    package struct Rate: Sendable, Equatable {
        package var perSecond: Double
        package var burst: Double

        package init(perSecond: Double, burst: Double) {
            self.perSecond = perSecond
            self.burst = burst
        }
    }

    private struct Bucket {
        var tokens: Double
        var filledAt: ContinuousClock.Instant
    }

    private let rate: Rate
    private let capacity: Int
    private let now: @Sendable () -> ContinuousClock.Instant
    private let buckets = Mutex<[String: Bucket]>([:])
    private static let overflowKey = ""

    /// Makes a limiter whose table holds `capacity` keys; further ones share a bucket until there is room.
    package init(
        _ rate: Rate,
        capacity: Int = 65_536,
        now: @escaping @Sendable () -> ContinuousClock.Instant = { .now }
    ) {
        self.rate = rate
        self.capacity = capacity
        self.now = now
    }

    /// How many keys are remembered.
    package var count: Int { buckets.withLock { $0.count } }

    /// Takes a token.
    ///
    /// - Returns: `nil` when there was one, or the seconds until there is.
    package func take(_ key: String, cost: Double = 1) -> Double? {
        let time = now()
        return buckets.withLock { buckets in
            var key = key
            if buckets[key] == nil && buckets.count >= capacity {
                // A bucket that is full again says nothing: its key is forgotten.
                buckets = buckets.filter { level($0.value, at: time) < rate.burst }
                if buckets.count >= capacity { key = Self.overflowKey }
            }
            let current = buckets[key].map { level($0, at: time) } ?? rate.burst
            guard current >= cost else { return (cost - current) / rate.perSecond }
            buckets[key] = Bucket(tokens: current - cost, filledAt: time)
            return nil
        }
    }

    private func level(_ bucket: Bucket, at time: ContinuousClock.Instant) -> Double {
        min(rate.burst, bucket.tokens + (time - bucket.filledAt) / .seconds(1) * rate.perSecond)
    }
}
