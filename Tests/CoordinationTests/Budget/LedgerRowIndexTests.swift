import Foundation
import Tensors
import Testing
import WireFormat

@testable import Coordination

/// What rows are looked up by, beside walks over all of them.
struct LedgerRowIndexTests {
    private func charge(_ time: Date, run: String, round: Int, to ledger: inout PrivacyLedger) throws {
        let charge = PrivacyCharge(mode: .central, noiseMultiplier: 4, participationCap: 0, parameterCount: 10)
        for state in [ChargeState.reserved, .committed] {
            _ = try ledger.append(
                population: "p",
                run: run,
                round: round,
                attempt: 1,
                state: state,
                event: charge.canonical,
                epsilonAfter: 1,
                at: time
            )
        }
    }

    /// Also where the clock was put back, after a transaction failed, and when stored rows are read again.
    @Test(arguments: [1, 2, 3, 4, 5] as [UInt64])
    func itFindsWhatAWalkFinds(_ seed: UInt64) throws {
        var random = Xoshiro256StarStar(seed: seed)
        var ledger = PrivacyLedger()
        let start = Date(timeIntervalSince1970: 1_800_000_000)
        var seconds = 0.0
        var rounds = 0
        for _ in 0..<60 {
            seconds += Double(Int(random.next() % 7)) - 2
            rounds += 1
            let run = random.next() % 2 == 0 ? "a" : "b"
            try charge(start.addingTimeInterval(seconds), run: run, round: rounds, to: &ledger)
            if random.next() % 8 == 0 {
                let lost = 2 * Int(1 + random.next() % 3)
                ledger.truncate(to: max(0, ledger.rows.count - lost))
            }
            let read = try PrivacyLedger(verifying: ledger.rows)
            for index in [ledger.index(ofPopulation: "p"), read.index(ofPopulation: "p")] {
                for offset in -3..<12 {
                    let time = start.addingTimeInterval(seconds + Double(offset))
                    #expect(index.last(by: time) == ledger.rows.lastIndex(where: { $0.createdAt <= time }))
                }
                for (run, round) in [("a", rounds), ("b", rounds), ("a", rounds - 2), ("b", rounds - 5), ("c", 1)] {
                    let walked = ledger.rows.lastIndex { ($0.runId, $0.round, $0.state) == (run, round, .committed) }
                    #expect(index.lastCommitted(run: run, round: round) == walked)
                }
            }
        }
        #expect(ledger.index(ofPopulation: "q").last(by: .distantFuture) == nil)
    }
}
