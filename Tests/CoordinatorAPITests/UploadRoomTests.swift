import Foundation
import Tensors
import TestSupport
import Testing

@testable import CoordinatorAPI

struct UploadRoomTests {
    private let start = Date(timeIntervalSince1970: 1_800_000_000)

    private func time(_ seconds: Double) -> Date { start.addingTimeInterval(seconds) }

    private func request(
        _ assignment: String,
        run: String = "r",
        _ byteCount: Int = 100,
        until deadline: Double = 600_000
    ) -> UploadRoom.Request {
        UploadRoom.Request(assignment: assignment, run: run, byteCount: byteCount, deadline: time(deadline))
    }

    @Test func aSlowUploadIsLeftAloneAsLongAsNobodyWaits() {
        var room = UploadRoom(limit: 1000)
        #expect(room.ask(request("slow"), at: time(0)) == .admitted(inPlaceOf: []))
        for step in 1...9 {
            #expect(room.ask(request("other\(step)"), at: time(Double(step) * 1000)) == .admitted(inPlaceOf: []))
        }
        #expect(room.holds("slow") && room.byteCount == 1000)
        // Not one of them has moved; the tenth that waits takes the place of one of them.
        guard case .admitted(let ended) = room.ask(request("tenth"), at: time(20_000)) else {
            Issue.record("nobody made room")
            return
        }
        #expect(ended.count == 1 && room.byteCount == 1000)
    }

    @Test func thirtySecondsAreEverybodys() {
        var room = UploadRoom(limit: 100)
        #expect(room.ask(request("first"), at: time(0)) == .admitted(inPlaceOf: []))
        #expect(room.ask(request("second"), at: time(29)) == .wait)
        #expect(room.ask(request("second"), at: time(31)) == .admitted(inPlaceOf: ["first"]))
        // It began again, and is known: the next one that waits need not wait for it.
        #expect(room.ask(request("first"), at: time(32)) == .wait)
        room.leave("second", at: time(33))
        #expect(room.ask(request("first"), at: time(34)) == .admitted(inPlaceOf: []))
        #expect(room.ask(request("third"), at: time(35)) == .admitted(inPlaceOf: ["first"]))
    }

    /// Of the slow ones the one that would need longest goes; the oldest that is on course stays, however slow the others find it.
    @Test func theOldestThatIsOnCourseStays() {
        var room = UploadRoom(limit: 300)
        for name in ["old", "younger", "still"] {
            #expect(room.ask(request(name), at: time(name == "old" ? 0 : 1)) == .admitted(inPlaceOf: []))
        }
        for second in 1...31 {
            room.note("old", receivedCount: second.isMultiple(of: 10) ? 1 : 0, at: time(Double(second)))
            room.note("younger", receivedCount: second.isMultiple(of: 3) ? 1 : 0, at: time(Double(second)))
        }
        #expect(room.ask(request("a"), at: time(32)) == .admitted(inPlaceOf: ["still"]))
        // "old" is slower than "younger", but the run's oldest, and ends within the hour.
        #expect(room.ask(request("b"), at: time(33)) == .admitted(inPlaceOf: ["younger"]))
        #expect(room.holds("old"))
    }

    @Test func aRunWithinItsShareIsNotMadeToPayForAnother() {
        var room = UploadRoom(limit: 1000)
        for index in 0..<2 { _ = room.ask(request("small\(index)", run: "small"), at: time(0)) }
        for index in 0..<8 { _ = room.ask(request("large\(index)", run: "large"), at: time(0)) }
        // Nobody moves. The large run wants more: of its own it may give up some, of the small one's none.
        for index in 8..<20 {
            let answer = room.ask(request("large\(index)", run: "large"), at: time(40 + Double(index)))
            if case .admitted(let ended) = answer { #expect(ended.allSatisfy { $0.hasPrefix("large") }) }
        }
        #expect(room.holds("small0") && room.holds("small1"))
        // The small run wants more: it has its share of half, out of the large one's.
        for index in 2..<5 {
            let answer = room.ask(request("small\(index)", run: "small"), at: time(100 + Double(index)))
            guard case .admitted(let ended) = answer else {
                Issue.record("the small run has no room for its share")
                continue
            }
            #expect(ended.allSatisfy { $0.hasPrefix("large") }, "\(ended)")
        }
    }

    /// Those that only ask, and do not come, hold up others for as long as an answer's `Retry-After` at most.
    @Test func whoAsksAndDoesNotComeIsForgotten() {
        var room = UploadRoom(limit: 100)
        _ = room.ask(request("first"), at: time(0))
        for index in 0..<50 { #expect(room.ask(request("liar\(index)"), at: time(1)) == .wait) }
        room.leave("first", at: time(2))
        #expect(room.ask(request("honest"), at: time(3)) == .wait)
        #expect(room.ask(request("honest"), at: time(20)) == .wait)
        #expect(room.ask(request("honest"), at: time(58)) == .admitted(inPlaceOf: []))
    }

    /// The attack that was found: 22 members of a cohort drip 1.5 kB/s each into updates of 100 MB, which fill 2 GiB.
    ///
    /// Honest uploads, with slow lines and fast ones, arrive all the time and ask again every five seconds.
    @Test(.slow, arguments: [1, 2, 3])
    func drippersHoldNobodyUp(seed: UInt64) throws {
        var generator = SplitMix64(state: seed)
        let size = 100_000_000
        var room = UploadRoom(limit: 2 << 30)
        struct Sender {
            var name: String
            var rate: Double
            var left: Double
            var isHonest: Bool
            var arrivedAt: Int
            var askAt: Int
            var waited = 0
            var lost = 0
        }
        var senders = (0..<22).map {
            Sender(name: "dripper\($0)", rate: 1500, left: 1e8, isHonest: false, arrivedAt: 0, askAt: 0)
        }
        var done: [Sender] = []
        for second in 0..<1800 {
            let now = time(Double(second))
            if second > 60, second.isMultiple(of: 20) {
                // 200 kB/s to 20 MB/s: eight minutes to five seconds.
                let rate = 2e5 * pow(100, Double.random(in: 0...1, using: &generator))
                senders.append(
                    Sender(
                        name: "honest\(second)",
                        rate: rate,
                        left: Double(size),
                        isHonest: true,
                        arrivedAt: second,
                        askAt: second
                    )
                )
            }
            for index in senders.indices.shuffled(using: &generator) {
                let name = senders[index].name
                if room.holds(name) {
                    let count = min(senders[index].rate, senders[index].left)
                    senders[index].left -= count
                    room.note(name, receivedCount: Int(count), at: now)
                    if senders[index].left <= 0 {
                        room.leave(name, at: now)
                        if senders[index].isHonest { done.append(senders[index]) }
                    }
                } else if senders[index].left > 0, senders[index].askAt <= second {
                    let answer = room.ask(
                        UploadRoom.Request(
                            assignment: name,
                            run: "r",
                            byteCount: Int(senders[index].left),
                            deadline: time(1e6)
                        ),
                        at: now
                    )
                    if case .admitted(let ended) = answer {
                        for other in senders.indices where ended.contains(senders[other].name) {
                            senders[other].lost += 1
                        }
                    } else {
                        senders[index].waited += 1
                        senders[index].askAt = second + (senders[index].isHonest ? 5 : 1)
                    }
                }
            }
            #expect(room.byteCount <= 2 << 30)
            senders.removeAll { $0.left <= 0 }
        }
        #expect(done.count > 60)
        // None of them waited for a place, and none lost one that had shown that it moves.
        #expect(done.allSatisfy { $0.waited == 0 }, "\(done.filter { $0.waited > 0 })")
        #expect(done.allSatisfy { $0.lost == 0 }, "\(done.filter { $0.lost > 0 })")
    }

    /// Whatever is asked: never more bytes than there is room for, no upload ends before its 30 seconds, all honest ones arrive.
    @Test(.slow, arguments: 1...8)
    func randomCrowdsAllArrive(seed: UInt64) {
        var generator = SplitMix64(state: seed)
        let limit = 1000
        var room = UploadRoom(limit: limit)
        var left: [String: Int] = [:]
        var rates: [String: Int] = [:]
        var admitted: [String: (since: Int, total: Int)] = [:]
        for index in 0..<60 {
            let name = "run\(index % 4)/\(index)"
            left[name] = Int.random(in: 1...1500, using: &generator)
            rates[name] = Int.random(in: 1...20, using: &generator)
        }
        var second = 0
        while !left.isEmpty, second < 40_000 {
            second += 1
            let now = time(Double(second))
            for name in left.keys.sorted().shuffled(using: &generator) {
                guard let rest = left[name], let rate = rates[name] else { continue }
                if room.holds(name) {
                    let count = min(rest, rate)
                    room.note(name, receivedCount: count, at: now)
                    left[name] = rest - count
                    if rest == count {
                        room.leave(name, at: now)
                        left[name] = nil
                    }
                } else if second.isMultiple(of: 3) {
                    let answer = room.ask(
                        UploadRoom.Request(
                            assignment: name,
                            run: String(name.prefix(4)),
                            byteCount: rest,
                            deadline: time(100_000)
                        ),
                        at: now
                    )
                    guard case .admitted(let ended) = answer else { continue }
                    for other in ended {
                        let before = admitted[other] ?? (second, 0)
                        #expect(before.total + second - before.since >= 30, "\(other) lost its room too early")
                        admitted[other] = (second, before.total + second - before.since)
                    }
                    admitted[name] = (second, admitted[name]?.total ?? 0)
                }
                #expect(room.byteCount <= limit)
            }
        }
        #expect(left.isEmpty, "\(left.count) never arrived")
    }
}
