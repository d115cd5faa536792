import HTTPServing
import Synchronization
import Testing

struct LimitsTests {
    private final class Clock: Sendable {
        private let time = Mutex(ContinuousClock.Instant.now)
        var now: ContinuousClock.Instant { time.withLock { $0 } }
        func advance(_ duration: Duration) { time.withLock { $0 += duration } }
    }

    @Test func bucketsGiveTheirBurstAndThenTheirRate() throws {
        let clock = Clock()
        let limiter = RateLimiter(.init(perSecond: 2, burst: 4), now: { clock.now })
        for _ in 0..<4 { #expect(limiter.take("a") == nil) }
        let wait = try #require(limiter.take("a"))
        #expect(abs(wait - 0.5) < 1e-9)
        #expect(limiter.take("b") == nil, "keys do not share a bucket")
        clock.advance(.milliseconds(500))
        #expect(limiter.take("a") == nil && limiter.take("a") != nil)
        clock.advance(.seconds(1000))
        for _ in 0..<4 { #expect(limiter.take("a") == nil) }
        #expect(limiter.take("a") != nil, "idle time gives no more than the burst")
    }

    @Test func theTableStaysBoundedUnderManyAddresses() {
        let clock = Clock()
        let limiter = RateLimiter(.init(perSecond: 1, burst: 2), capacity: 100, now: { clock.now })
        for index in 0..<10_000 { _ = limiter.take("key \(index)") }
        #expect(limiter.count == 100)
        #expect(limiter.take("key 0") == nil, "an address that is known keeps its own bucket")
        #expect(limiter.take("stranger") != nil, "the others share one")
        clock.advance(.seconds(10))
        #expect(limiter.take("stranger") == nil)
        #expect(limiter.count <= 2, "full buckets are forgotten when room is needed")
    }

    @Test func aFullTableIsLookedThroughOnceASecondAtMost() {
        let clock = Clock()
        let limiter = RateLimiter(.init(perSecond: 10, burst: 2), capacity: 100, now: { clock.now })
        for index in 0..<100 { _ = limiter.take("key \(index)") }
        for _ in 0..<3 { _ = limiter.take("stranger") }
        #expect(limiter.take("stranger") != nil)
        // All buckets are full again, and nobody looks yet.
        clock.advance(.milliseconds(900))
        #expect(limiter.take("another") == nil && limiter.count == 100)
        clock.advance(.milliseconds(200))
        #expect(limiter.take("another") == nil && limiter.count <= 2)
    }

    /// Keys for which there is no room share a bucket that no key has.
    @Test(arguments: ["", "known"])
    func theSharedBucketIsNobodysOwn(key: String) {
        let clock = Clock()
        let limiter = RateLimiter(.init(perSecond: 1, burst: 2), capacity: 1, now: { clock.now })
        #expect(limiter.take(key) == nil)
        for _ in 0..<2 { #expect(limiter.take("stranger") == nil) }
        #expect(limiter.take("stranger") != nil)
        #expect(limiter.take(key) == nil, "the strangers' requests are not this key's")
    }

    @Test func addressesAndNetworksAreParsed() throws {
        for (text, party) in [
            ("192.0.2.7", "192.0.2.7"), ("192.0.2.7:443", "192.0.2.7"), ("::ffff:192.0.2.7", "192.0.2.7"),
            ("[2001:db8::1]:80", "2001:db8:0:0::/64"), ("2001:db8::ffff", "2001:db8:0:0::/64"),
            ("fe80::1%eth0", "fe80:0:0:0::/64"),
        ] {
            #expect(NetworkAddress(text)?.party == party, "\(text)")
        }
        for text in ["", "unknown", "_hidden", "1.2.3", "[::1", "1.2.3.4.5", "::g"] {
            #expect(NetworkAddress(text) == nil)
        }
        let list = try #require(NetworkList(["10.0.0.0/8", "192.0.2.128/25", "::1", "2001:db8::/33"]))
        for (text, isIn) in [
            ("10.255.0.1", true), ("11.0.0.1", false), ("192.0.2.200", true), ("192.0.2.100", false), ("::1", true),
            ("2001:db8:7fff::1", true), ("2001:db8:8000::1", false), ("::ffff:10.1.1.1", true),
        ] {
            #expect(list.contains(try #require(NetworkAddress(text))) == isIn, "\(text)")
        }
        for entry in ["10.0.0.0/33", "x", "10.0.0.0/8/8", "::/129"] { #expect(NetworkList([entry]) == nil) }
    }

    @Test func onlyNamedProxiesAreBelieved() throws {
        let proxies = try #require(NetworkList(["10.0.0.0/8"]))
        func client(_ peer: String, _ forwarded: String?, _ legacy: String?) -> String {
            ForwardedAddress.client(peer: peer, forwarded: forwarded, legacy: legacy, proxies: proxies)
        }
        #expect(client("198.51.100.9", nil, "203.0.113.5") == "198.51.100.9", "a stranger cannot forge an address")
        #expect(client("10.0.0.1", nil, "203.0.113.5") == "203.0.113.5")
        #expect(client("10.0.0.1", nil, "6.6.6.6, 203.0.113.5, 10.0.0.2") == "203.0.113.5", "the left can be forged")
        #expect(client("10.0.0.1", "for=6.6.6.6, for=203.0.113.5;proto=https", nil) == "203.0.113.5")
        // nginx and most others write one field and hand on the other as it came.
        #expect(client("10.0.0.1", "for=127.0.0.1", "6.6.6.6, 203.0.113.5") == "10.0.0.1", "one of the two is forged")
        #expect(client("10.0.0.1", "for=203.0.113.5", "127.0.0.1") == "10.0.0.1")
        #expect(client("10.0.0.1", "for=\"203.0.113.5:80\"", "6.6.6.6, 203.0.113.5") == "203.0.113.5")
        #expect(
            client("10.0.0.1", "for=\"6.6.6.6, for=203.0.113.5", nil) == "203.0.113.5",
            "an open quote hides nothing"
        )
        #expect(client("::ffff:10.0.0.1", nil, "::ffff:203.0.113.5") == "203.0.113.5")
        #expect(client("10.0.0.1", nil, "203.0.113.5, nonsense") == "10.0.0.1")
        #expect(client("10.0.0.1", "for=\"[2001:db8::17]:4711\"", nil) == "2001:db8::17")
        #expect(client("10.0.0.1", "for=unknown", nil) == "10.0.0.1")
        #expect(client("10.0.0.1", nil, nil) == "10.0.0.1")
    }

    @Test func entityTagsCompareAsTheStandardSays() {
        for (field, weak, strong) in [
            ("\"a\"", true, true), ("*", true, true), ("W/\"a\"", true, false), ("\"b\", \"a\"", true, true),
            ("\"ab\"", false, false), ("\"b\"", false, false), ("a", false, false), ("\"b,a\", W/\"a\"", true, false),
            ("", false, false), ("\"a", false, false),
        ] {
            #expect(EntityTag.list(field, contains: "\"a\"") == weak, "\(field)")
            #expect(EntityTag.list(field, contains: "\"a\"", strong: true) == strong, "\(field)")
        }
    }
}
