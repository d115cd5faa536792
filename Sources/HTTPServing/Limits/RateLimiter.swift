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
    private struct Table {
        var buckets: [String: Bucket] = [:]
        /// When full buckets may be looked for again.
        var nextSweep: ContinuousClock.Instant?
    }

    private let table = Mutex(Table())
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
    package var count: Int { table.withLock { $0.buckets.count } }

    /// Takes a token.
    ///
    /// - Returns: `nil` when there was one, or the seconds until there is.
    package func take(_ key: String, cost: Double = 1) -> Double? {
        let time = now()
        return table.withLock { table in
            var key = key
            if table.buckets[key] == nil && table.buckets.count >= capacity {
                makeRoom(&table, at: time)
                if table.buckets.count >= capacity { key = Self.overflowKey }
            }
            let current = table.buckets[key].map { level($0, at: time) } ?? rate.burst
            guard current >= cost else { return (cost - current) / rate.perSecond }
            table.buckets[key] = Bucket(tokens: current - cost, filledAt: time)
            return nil
        }
    }

    /// Forgets the keys of buckets that are full again: they say nothing.
    ///
    /// Once a second at most: whoever calls from many addresses must not have the whole table read for each call.
    private func makeRoom(_ table: inout Table, at time: ContinuousClock.Instant) {
        guard table.nextSweep.map({ $0 <= time }) ?? true else { return }
        table.nextSweep = time + .seconds(1)
        table.buckets = table.buckets.filter { level($0.value, at: time) < rate.burst }
    }

    private func level(_ bucket: Bucket, at time: ContinuousClock.Instant) -> Double {
        min(rate.burst, bucket.tokens + (time - bucket.filledAt) / .seconds(1) * rate.perSecond)
    }
}
