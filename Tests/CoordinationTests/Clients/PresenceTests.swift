import Foundation
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

@testable import Coordination

struct PresenceTests {
    /// Against counting everybody, through minutes of random sightings, gaps and clocks that go back.
    @Test func countsAreThoseOfTheLastQuarterOfAnHour() {
        var generator = SplitMix64(state: 3)
        var presence = Presence()
        var last: [String: (population: String, minute: Int)] = [:]
        var minute = 1_000_000
        for step in 0..<20_000 {
            if step.isMultiple(of: 97) { minute += Int.random(in: 0...3, using: &generator) }
            // Nobody for half an hour, and a clock that is put back.
            if step == 9_000 { minute += 30 }
            if step == 15_000 { minute -= 7 }
            let number = Int.random(in: 0..<300, using: &generator)
            let population = number < 100 ? "a" : "b"
            let time = Date(timeIntervalSince1970: Double(minute) * 60 + Double.random(in: 0..<60, using: &generator))
            presence.note("c\(number)", population: population, at: time)
            last["c\(number)"] = (population, minute)
            #expect(presence.lastSeen("c\(number)") == time)
            guard step.isMultiple(of: 50) else { continue }
            for population in ["a", "b"] {
                let expected = last.values.count { $0.population == population && $0.minute >= minute - 15 }
                #expect(presence.count(population: population, at: time) == expected, "step \(step)")
            }
        }
        #expect(presence.count(population: "nobody's", at: Date()) == 0 && presence.lastSeen("x") == nil)
    }

    /// Memory that grows whenever a client comes for the first time since the start looks like a leak for days.
    ///
    /// So a server takes it all at once, which can be told without measuring the process.
    @Test func aStartTakesSpaceForEveryClientThatIsKnown() async throws {
        let bench = try await Bench(.memory)
        let (_, clients) = try await bench.startRun(try Bench.specification(), clients: 200)
        let restarted = try await bench.restarted()
        let capacity = await restarted.clients.presence.capacity
        #expect(capacity >= 200)
        for client in clients { _ = try await restarted.checkIn(client: client, CheckInRequest(), wait: .zero) }
        #expect(await restarted.clients.presence.capacity == capacity)
    }
}
