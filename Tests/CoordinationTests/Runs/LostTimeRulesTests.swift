import Foundation
import TestSupport
import Testing

@testable import Coordination

/// Which time is given back, as a value; what becomes of deadlines is in `LostTimeTests`.
struct LostTimeRulesTests {
    private let start = SampleRun.start

    @Test("A hold gives its time back when it ends, and in portions while it lasts.")
    func holds() {
        var lost = LostTime()
        let free = lost.note("r", isHeld: false, at: start)
        let begun = lost.note("r", isHeld: true, at: start)
        let early = lost.note("r", isHeld: true, at: start + 10)
        #expect(free == nil && begun == nil && early == nil && lost.isHeld("r"))
        let portion = lost.note("r", isHeld: true, at: start + 30)
        #expect(portion == 30)
        lost.noteGivenBack("r", at: start + 30)
        let rest = lost.note("r", isHeld: false, at: start + 35)
        #expect(rest == 5)
        // What could not be stored is owed still.
        let again = lost.note("r", isHeld: false, at: start + 36)
        #expect(again == 6 && lost.owed("r", at: start + 36) == 6)
        lost.noteGivenBack("r", isHeld: false, at: start + 36)
        #expect(!lost.isHeld("r") && lost.owed("r", at: start + 99) == nil)
    }

    @Test("A gap between two ticks counts only above the limit, and only if there is one.")
    func gaps() {
        var lost = LostTime()
        #expect(!lost.isAway(limit: 5, at: start))
        lost.noteTick(at: start)
        #expect(!lost.isAway(limit: 5, at: start + 5) && lost.isAway(limit: 5, at: start + 6))
        #expect(!lost.isAway(limit: nil, at: start + 6))
    }

    @Test("Runs that are over are owed nothing.")
    func ended() {
        var lost = LostTime()
        lost.owe("a", since: start)
        lost.owe("b", since: start)
        lost.keep { $0 == "b" }
        #expect(lost.holds == ["b": start])
    }

    @Test("The file of the last sign of life has the time that was given, and is touched once a second.")
    func signOfLife() throws {
        let directory = try TemporaryDirectory()
        var sign = SignOfLife(path: directory.path + "/alive")
        #expect(sign.last() == nil)
        sign.mark(at: start)
        sign.mark(at: start + 0.5)
        let first = try #require(sign.last()).timeIntervalSince(start)
        #expect(abs(first) < 0.001)
        sign.mark(at: start + 2)
        let second = try #require(sign.last()).timeIntervalSince(start)
        #expect(abs(second - 2) < 0.001)
    }
}
