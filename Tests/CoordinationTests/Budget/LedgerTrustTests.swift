import Foundation
import StrictJSON
import TestSupport
import Testing
import WireFormat

@testable import Coordination

struct LedgerTrustTests {
    private let start = Date(timeIntervalSince1970: 1_800_000_000)

    private func specification(_ privacy: RunFile) throws -> RunSpecification {
        try RunSpecification.sample {
            $0.rounds = 3
            $0.privacy = privacy
            $0.cohort += ["goal": 3, "minimum": 2, "max_participations": 3]
        }
    }

    private let noised: RunFile = ["mode": "central", "noise_multiplier": 5, "clipping": ["norm": 1]]

    @Test("An alarm halts private runs and no others.")
    func alarm() throws {
        let (secret, plain) = (try specification(noised), try specification(["mode": "none"]))
        var trust = LedgerTrust()
        #expect(!trust.isHalted(secret) && trust.word == "kept" && trust.problems(at: start).isEmpty)
        trust.alarm = LedgerAlarm("it was restored", nil, PrivacyLedger())
        #expect(trust.isHalted(secret) && !trust.isHalted(plain) && trust.word == "alarm")
        #expect(trust.publishingHalt(secret)?.code == "ledger_rolled_back" && trust.publishingHalt(plain) == nil)
        #expect(trust.mayHaveGoneOnElsewhere(ChargedAttempt(run: "r", round: 1, attempt: 1)))
        let refused = #expect(throws: CoordinationError.self) { try trust.requireOpening() }
        #expect(refused?.code == "ledger_rolled_back" && refused?.kind == .conflict)
        #expect(trust.problems(at: start).map(\.code) == ["ledger_alarm"])
        #expect(trust.alarm?.isRecordMissing == true)
    }

    @Test("A record that cannot be written lets work go on, and lets nothing be published.")
    func unwritable() throws {
        let secret = try specification(noised)
        var trust = LedgerTrust()
        let isNews = trust.noteTrouble("no space", at: start)
        #expect(isNews && !trust.isHalted(secret) && trust.word == "unwritable")
        #expect(trust.publishingHalt(secret)?.code == "ledger_record_unwritable")
        #expect(!trust.mayHaveGoneOnElsewhere(ChargedAttempt(run: "r", round: 1, attempt: 1)))
        #expect(trust.holdReason == "the disk: no space")
    }

    @Test("The pause between two tries doubles up to ten seconds, and trouble is news once.")
    func pauses() {
        var trust = LedgerTrust()
        var pauses: [Double] = []
        for _ in 0..<7 {
            let isNews = trust.noteTrouble("no space", at: start)
            #expect(isNews == pauses.isEmpty)
            pauses.append(trust.trouble?.pause ?? 0)
        }
        #expect(pauses == [0.5, 1, 2, 4, 8, 10, 10])
        #expect(trust.trouble?.since == start && trust.trouble?.until == start.addingTimeInterval(10))
        let waited = [33, 34].map { trust.noteKept(at: start.addingTimeInterval($0)) }
        #expect(waited == [33, nil] && trust.hasRecord)
    }

    @Test("A record that was never read halts private runs until it was.")
    func unread() throws {
        let secret = try specification(noised)
        var trust = LedgerTrust()
        trust.noteUnread()
        _ = trust.noteTrouble("an error of the disk", at: start)
        #expect(trust.isHalted(secret) && trust.word == "unread" && trust.trouble?.code == "ledger_record_unread")
        #expect(trust.mayHaveGoneOnElsewhere(ChargedAttempt(run: "r", round: 1, attempt: 1)))
        let (wasUnread, waited) = trust.noteRead(at: start.addingTimeInterval(5))
        #expect(wasUnread && waited == 5 && !trust.isHalted(secret) && trust.trouble == nil)
        let again = trust.noteRead(at: start)
        #expect(!again.wasUnread)
    }

    @Test("An attempt that lost updates stays charged though no alarm stands.")
    func lostUpdates() {
        var trust = LedgerTrust()
        let lost = ChargedAttempt(run: "r", round: 1, attempt: 1)
        trust.attemptsWithLostUpdates = [lost]
        #expect(trust.mayHaveGoneOnElsewhere(lost))
        // The run's later attempts lost nothing.
        #expect(!trust.mayHaveGoneOnElsewhere(ChargedAttempt(run: "r", round: 1, attempt: 2)))
    }
}
