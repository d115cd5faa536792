import Synchronization

/// Token buckets by key, in a table of bounded size.
package final class RateLimiter: Sendable {
    /// How fast a bucket fills, and how much it holds.
    package struct Rate: Sendable, Equatable {
        package let perSecond: Double
        package let burst: Double

        /// - Parameters:
        ///   - perSecond: Tokens that a bucket gains in a second, more than 0.
        ///   - burst: Tokens that a full bucket holds, at least 1: a smaller bucket would never hold what a request costs.
        package init(perSecond: Double, burst: Double) {
            precondition(perSecond > 0 && burst >= 1, "no bucket of this rate ever holds a token")
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
    private struct Table {
        var buckets: [String: Bucket] = [:]
        /// The bucket that keys share for which the table has no room.
        var overflow: Bucket?
        /// When the table may be searched for full buckets again.
        var nextSweep: ContinuousClock.Instant?
    }

    private let table = Mutex(Table())

    /// Creates a limiter whose table holds `capacity` keys; further keys share one bucket until there is room.
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
    package var count: Int { table.withLock { $0.buckets.count } }

    /// Takes one token from the bucket of a key.
    ///
    /// - Returns: `nil` if there was one, or the seconds until there is.
    package func take(_ key: String) -> Double? {
        let time = now()
        return table.withLock { table in
            if table.buckets[key] == nil && table.buckets.count >= capacity {
                makeRoom(&table, at: time)
                if table.buckets.count >= capacity { return take(from: &table.overflow, at: time) }
            }
            return take(from: &table.buckets[key], at: time)
        }
    }

    private func take(from bucket: inout Bucket?, at time: ContinuousClock.Instant) -> Double? {
        let current = bucket.map { level($0, at: time) } ?? rate.burst
        guard current >= 1 else { return (1 - current) / rate.perSecond }
        bucket = Bucket(tokens: current - 1, filledAt: time)
        return nil
    }

    /// Drops the keys of buckets that are full again, which are the same as new ones.
    ///
    /// At most once a second, so that a caller with many addresses does not make every call read the whole table.
    private func makeRoom(_ table: inout Table, at time: ContinuousClock.Instant) {
        guard table.nextSweep.map({ $0 <= time }) ?? true else { return }
        table.nextSweep = time + .seconds(1)
        table.buckets = table.buckets.filter { level($0.value, at: time) < rate.burst }
    }

    private func level(_ bucket: Bucket, at time: ContinuousClock.Instant) -> Double {
        min(rate.burst, bucket.tokens + (time - bucket.filledAt) / .seconds(1) * rate.perSecond)
    }
}
