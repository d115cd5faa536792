import Testing
import WireFormat

struct ClientGenerationTests {
    @Test func theLastOneAndTheLastThatArrivedAreGood() {
        var generation = ClientGeneration(issued: 0, confirmed: 0)
        #expect(generation.next() == 1)
        // Its assignment may not have arrived: the one before is good, however often.
        #expect(generation.confirm(0) && generation.next() == 2)
        #expect(generation.confirm(0) && generation.next() == 3)
        // What was given meanwhile went to somebody else.
        #expect(!generation.confirm(1) && !generation.confirm(2))
        #expect(generation.confirm(3) && !generation.confirm(0))
        // Work on the assignment says as much as the next check-in.
        #expect(generation.next() == 4)
        generation.acknowledge()
        #expect(!generation.confirm(3) && generation.confirm(4))
        // A server that was restored from a backup has forgotten some.
        #expect(generation.confirm(9) && generation.next() == 10)
    }

    /// Two copies of one state in every order of turns: each works once at most before one of them is noticed.
    @Test(arguments: 0..<64)
    func twoCopiesThatBothWorkAreNoticed(_ order: Int) {
        var server = ClientGeneration(issued: 4, confirmed: 4)
        var copies = [4, 4]
        var given = [0, 0]
        for step in 0..<18 {
            let copy = order >> (step % 6) & 1
            guard server.confirm(copies[copy]) else { return }
            copies[copy] = server.next()
            given[copy] += 1
            #expect(min(given[0], given[1]) <= 1, "order \(order): \(given)")
        }
        // Nobody was noticed: only one of them has worked.
        #expect(min(given[0], given[1]) == 0, "order \(order): \(given)")
    }

    /// Why the number before the last one is not good for ever: two copies of one state that work by turns would each say the one
    /// before the other's, and each make reports that the other's ledger knows nothing of.
    @Test func wereTheOneBeforeAlwaysGoodTwoCopiesWouldNeverBeNoticed() {
        var issued = 4
        var copies = [4, 4]
        var given = [0, 0]
        for turn in 0..<100 {
            guard copies[turn % 2] == issued || copies[turn % 2] == issued - 1 else { break }
            issued += 1
            copies[turn % 2] = issued
            given[turn % 2] += 1
        }
        #expect(given == [50, 50])
        // By the rule that is used, the second copy's first turn is the last of one of them.
        var server = ClientGeneration(issued: 4, confirmed: 4)
        (copies, given) = ([4, 4], [0, 0])
        for turn in 0..<100 {
            guard server.confirm(copies[turn % 2]) else { break }
            copies[turn % 2] = server.next()
            server.acknowledge()
            given[turn % 2] += 1
        }
        #expect(given == [1, 0])
    }

    @Test func noCodeHasTwoVerdictsAndUnknownOnesEndNothing() {
        var seen: Set<String> = []
        for verdict in RefusalVerdict.allCases {
            for code in RefusalVerdict.table[verdict] ?? [] {
                #expect(seen.insert(code).inserted, "\(code)")
                #expect(RefusalVerdict(code: code) == verdict)
            }
        }
        for code in [
            "", "internal", "recovering", "rate_limited", "digest_mismatch", "upload_taken_over", "round_opening",
        ] {
            #expect(RefusalVerdict(code: code) == nil)
        }
    }
}
