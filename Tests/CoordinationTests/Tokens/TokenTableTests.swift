import Foundation
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

@testable import Coordination

struct TokenTableTests {
    private let start = Date(timeIntervalSince1970: 1_800_000_000)

    /// Against a plain list of records, through random additions, changes and removals.
    @Test(.slow) func everyLookUpFindsWhatASearchOfAllRecordsFinds() {
        var generator = SplitMix64(state: 11)
        var table = TokenTable()
        var plain: [TokenRecord] = []
        var shown: [String] = []
        for step in 0..<4000 {
            let time = start.addingTimeInterval(Double(step))
            switch Int.random(in: 0..<6, using: &generator) {
            case 0, 1, 2:
                let isClient = Bool.random(using: &generator)
                var record = TokenRecord(
                    hash: "h\(step)",
                    role: isClient ? .client : [.admin, .viewer, .enrollment][step % 3],
                    clientId: isClient ? "c\(Int.random(in: 0..<40, using: &generator))" : nil,
                    createdAt: time
                )
                // Now and then another text of a token that is there.
                if !isClient, let other = plain.last(where: { $0.role != .client }), step.isMultiple(of: 4) {
                    (record.id, record.role) = (other.id, other.role)
                }
                if step.isMultiple(of: 3) { record.expiresAt = time.addingTimeInterval(Double(step % 90_000)) }
                plain.append(record)
                table.set(record)
                if !isClient && !shown.contains(record.id) { shown.append(record.id) }
            case 3 where !plain.isEmpty:
                let place = Int.random(in: 0..<plain.count, using: &generator)
                plain[place].expiresAt = Bool.random(using: &generator) ? nil : time.addingTimeInterval(5)
                table.set(plain[place])
            case 4 where !plain.isEmpty:
                let record = plain.remove(at: Int.random(in: 0..<plain.count, using: &generator))
                table.remove(record.hash)
                if !plain.contains(where: { $0.id == record.id }) { shown.removeAll { $0 == record.id } }
            default: table.remove("unknown")
            }
            guard step.isMultiple(of: 40) else { continue }
            #expect(table.count == plain.count)
            for record in plain {
                #expect(table[record.hash] == record)
                let alike = plain.filter {
                    record.role == .client ? $0.clientId == record.clientId : $0.id == record.id
                }
                #expect(table.texts(like: record) == alike)
            }
            let admins = plain.filter { $0.role == .admin }
            #expect(table.hasAdmin == !admins.isEmpty)
            for id in shown.suffix(3) + ["nobody's"] {
                let isThere = admins.contains { $0.expiresAt == nil && $0.id != id }
                #expect(table.hasPermanentAdmin(besides: id) == isThere)
            }
            var (listed, cursor): ([String], Int?) = ([], 0)
            while let place = cursor {
                let page = table.listed(after: place, limit: 7)
                listed += page.records.map(\.id)
                cursor = page.next
            }
            #expect(listed == shown)
        }
    }

    @Test func whatHasExpiredIsDueWithinTheHourAndNothingElseIs() {
        var table = TokenTable()
        for minute in 0..<300 {
            table.set(
                TokenRecord(
                    hash: "h\(minute)",
                    role: .client,
                    clientId: "c\(minute)",
                    expiresAt: start.addingTimeInterval(Double(minute) * 60),
                    createdAt: start
                )
            )
        }
        let time = start.addingTimeInterval(150 * 60)
        var found: Set<String> = []
        while case let due = table.removable(at: time, limit: 20), !due.isEmpty {
            #expect(due.count <= 20)
            for hash in due {
                #expect(table[hash]?.expiresAt.map { $0 < time } == true)
                found.insert(hash)
                table.remove(hash)
            }
        }
        #expect((90...150).contains(found.count) && table.count == 300 - found.count)
        // An operator may look up for a week what has become of a token.
        var viewer = TokenRecord(hash: "v", role: .viewer, createdAt: start)
        viewer.expiresAt = start
        table.set(viewer)
        #expect(!table.removable(at: start.addingTimeInterval(6 * 86_400), limit: 1000).contains("v"))
        #expect(table.removable(at: start.addingTimeInterval(8 * 86_400), limit: 1000).contains("v"))
    }

    /// Older versions kept every text that a rotation with a grace period had left, for ever.
    @Test func aStartKeepsTheTwoNewestTextsAndDeletesTheOthers() async throws {
        let bench = try await Bench(.memory)
        let (_, clients) = try await bench.startRun(try Bench.specification(), clients: 2)
        let now = bench.clock.now
        let live = (0..<300).map { number in
            TokenRecord(
                hash: "old\(number)",
                id: "tok_shared",
                role: .client,
                clientId: clients[0],
                expiresAt: now.addingTimeInterval(86_400),
                createdAt: now.addingTimeInterval(Double(number))
            )
        }
        let expired = (0..<300).map { number in
            TokenRecord(
                hash: "expired\(number)",
                role: .client,
                clientId: clients[1],
                expiresAt: now.addingTimeInterval(-1),
                createdAt: now.addingTimeInterval(-100)
            )
        }
        try bench.store.commit((live + expired).map { .token($0) })
        let restarted = try await bench.restarted()
        #expect(await restarted.tokens.texts(client: clients[0]).map(\.hash) == ["old298", "old299"])
        #expect(await restarted.tokens.texts(client: clients[1]).count == 1)
        let stored = try bench.store.load().tokens
        #expect(stored.count { $0.clientId == clients[0] } == 2 && stored.count { $0.clientId == clients[1] } == 1)
    }
}
