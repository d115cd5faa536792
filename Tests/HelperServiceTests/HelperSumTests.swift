import Coordination
import Crypto
import DifferentialPrivacy
import Foundation
import HelperService
import SecureAggregation
import TestSupport
import Testing
import WireFormat

/// One sum a session, its noise, and what is left of it.
@Suite(.timeLimit(.minutes(10)))
struct HelperSumTests {
    private func sum(_ fixture: HelperFixture, _ session: HelperSessionView, _ list: [UInt8]) async throws -> SumFile {
        try await fixture.helper.makeSum(session.session, of: HelperFixture.server, list: list)
    }

    private func bytes(_ sum: SumFile) throws -> Data { try Data(contentsOf: URL(fileURLWithPath: sum.path)) }

    @Test func withoutNoiseTheSumIsThatOfTheIntegers() async throws {
        let fixture = try await HelperFixture()
        let session = try await fixture.grant(fixture.request(coordinates: 70_000))
        // A fourth device uploads and is not named.
        let members = Array(try devices(4, of: session).prefix(3))
        let sum = try await sum(fixture, session, try list(members))
        func value(_ device: Int, _ place: Int) -> Int64 { Int64((device * 7 + place * 3) % 19 - 9) }
        let expected: [Int64] = (0..<70_000).map { value(0, $0) + value(1, $0) + value(2, $0) }
        #expect(try unmasked(members, sum) == expected)
        #expect(sum.byteCount == 280_000)
        #expect(Data(SHA256.hash(data: try bytes(sum))) == hash(sum.sha256))
    }

    private func hash(_ digits: String) -> Data? { LedgerChain.bytes(digits).map { Data($0) } }

    /// The sample deviation of 40,000 draws is within 3 % of Σ*, which is 8 of its own deviations.
    ///
    /// So it fails by chance with less than 10⁻¹⁴; halved noise, none, or noise that two sums share would be far outside. The server's words about step and norm change nothing.
    @Test func theNoiseHasItsFullSizeInEverySum() async throws {
        let fixture = try await HelperFixture(epsilon: 1000)
        var earlier: [Int64] = []
        for round in 1...2 {
            var request = fixture.request(round: round, coordinates: 40_000, noiseMultiplier: 1)
            request.step = round == 1 ? 1e-300 : 1e200
            let session = try await fixture.grant(request)
            // Two of a hundred: who drops out changes nothing.
            let members = try devices(2, of: session)
            let found = try unmasked(members, try await sum(fixture, session, try list(members)))
            let noise = found.enumerated().map { place, value in
                value - (0..<2).reduce(Int64(0)) { $0 + Int64(($1 * 7 + place * 3) % 19 - 9) }
            }
            func deviation(_ values: [Int64]) -> Double {
                (values.reduce(0.0) { $0 + Double($1) * Double($1) } / Double(values.count)).squareRoot()
            }
            let expected = IntegerGaussianSampler.standardDeviation
            #expect(abs(deviation(noise) / expected - 1) < 0.03)
            if !earlier.isEmpty {
                let difference = zip(noise, earlier).map { $0 - $1 }
                #expect(abs(deviation(difference) / (expected * 2.0.squareRoot()) - 1) < 0.03)
            }
            earlier = noise
        }
    }

    /// The small exact noises, each by its own charge.
    @Test func smallSumsMayHaveTheExactNoises() async throws {
        let fixture = try await HelperFixture(epsilon: 1000)
        var request = fixture.request(coordinates: 300, noiseMultiplier: 1)
        (request.noiseDeviation, request.norm, request.coordinateBound) = (100, 50, 50)
        let exact = try await fixture.grant(request)
        _ = try await sum(fixture, exact, try list(try devices(2, of: exact)))
        request.round = 2
        (request.noise, request.measure, request.bits) = (.laplace, .l1, 64)
        (request.noiseDeviation, request.norm, request.coordinateBound) = (SessionNoise.laplaceDeviation, 1 << 31, 1000)
        let laplace = try await fixture.grant(request)
        let members = try devices(2, of: laplace)
        let made = try await sum(fixture, laplace, try list(members))
        #expect(made.byteCount == 300 * 8)
        let events = try await fixture.helper.ledgerAudit("keyboards").rows.compactMap(\.event)
        let charges = events.compactMap { try? JSONDecoder().decode(PrivacyCharge.self, from: Data($0.utf8)) }
        #expect(charges.map(\.kind) == [.discreteGaussian, .discreteGaussian, .laplace, .laplace])
        #expect(charges.map(\.noiseMultiplier) == [2, 2, 2, 2])
    }

    /// A second list, be it another one, never has another sum: two of one session would tell their difference.
    @Test func theSameListHasTheSameBytesAndAnotherHasNone() async throws {
        let fixture = try await HelperFixture(epsilon: 8)
        let session = try await fixture.grant(fixture.request(noiseMultiplier: 1))
        let members = try devices(4, of: session)
        let first = try await sum(fixture, session, try list(members))
        let kept = try bytes(first)
        for restarts in [false, true] {
            if restarts { try await fixture.restart() }
            let again = try await sum(fixture, session, try list(members))
            #expect(again == first)
            #expect(try bytes(again) == kept)
            #expect(try await fixture.helper.sumFile(session.session, of: HelperFixture.server) == first)
            for other in [Array(members.prefix(3)), Array(members.reversed().prefix(2))] {
                #expect(await code { _ = try await self.sum(fixture, session, try list(other)) } == "session_spent")
            }
            // The same members with other boxes are another list.
            let sealedAgain = try devices(4, of: session, salt: "again")
            #expect(await code { _ = try await self.sum(fixture, session, try list(sealedAgain)) } == "session_spent")
        }
        let ledger = try await fixture.helper.ledgerAudit("keyboards").rows.count
        #expect(ledger == 3, "the budget, one reservation and one commit")
        try await fixture.helper.deleteSum(session.session, of: HelperFixture.server)
        try await fixture.helper.deleteSum(session.session, of: HelperFixture.server)
        #expect(await code { _ = try await self.sum(fixture, session, try list(members)) } == "session_expired")
        #expect(
            await code { _ = try await self.sum(fixture, session, try list(Array(members.prefix(2)))) }
                == "session_spent"
        )
        #expect(try FileManager.default.contentsOfDirectory(atPath: fixture.directory + "/sums").isEmpty)
        #expect(try await fixture.domain().budget?.spentEpsilon ?? 0 > 1, "the charge stays")
        // Whoever has fetched the sum may have another attempt, with a charge of its own.
        let next = try await fixture.grant(fixture.request(attempt: 2, noiseMultiplier: 1))
        #expect(next.session != session.session)
    }

    @Test func listsThatComeTogetherHaveOneSum() async throws {
        let fixture = try await HelperFixture(epsilon: 8)
        let session = try await fixture.grant(fixture.request(coordinates: 100_000, noiseMultiplier: 1))
        let members = try devices(5, of: session)
        let lists = try (0..<8).map { try list(Array(members.prefix(2 + $0 % 4))) }
        let helper = fixture.helper
        let outcomes = await withTaskGroup(of: (Int, String).self) { group in
            for (index, list) in lists.enumerated() {
                group.addTask {
                    do {
                        let sum = try await helper.makeSum(session.session, of: HelperFixture.server, list: list)
                        return (index % 4, sum.sha256)
                    } catch {
                        return (index % 4, (error as? CoordinationError)?.code ?? "\(error)")
                    }
                }
            }
            return await group.reduce(into: [(Int, String)]()) { $0.append($1) }
        }
        let done = outcomes.filter { $0.1.count == 64 }
        #expect(Set(done.map(\.1)).count == 1 && done.count == 2 && Set(done.map(\.0)).count == 1, "\(outcomes)")
        #expect(outcomes.filter { $0.1 == "session_spent" }.count == 6)
        #expect(try FileManager.default.contentsOfDirectory(atPath: fixture.directory + "/sums").count == 1)
    }

    /// A refused list opens nothing that is kept: a right one follows, and the wrong entries are named in one answer.
    @Test func refusedListsCostNothing() async throws {
        let fixture = try await HelperFixture(
            epsilon: 100,
            policy: HelperPolicy(minimum: 2, maximum: 100, leastNoise: 0.5)
        )
        var request = fixture.request(noiseMultiplier: 1)
        request.maximum = 4
        let session = try await fixture.grant(request)
        let other = try await fixture.grant(fixture.request(run: "run_2", noiseMultiplier: 1))
        let evaluation = try await fixture.grant(fixture.request(purpose: .evaluation, noiseMultiplier: 1))
        let members = try devices(5, of: session)
        func refusal(_ bytes: [UInt8]) async -> SecureAggregationError? {
            do {
                _ = try await sum(fixture, session, bytes)
                return nil
            } catch { return error as? SecureAggregationError }
        }
        let good = try list(Array(members.prefix(3)))
        for (bytes, expected) in [
            ([], "cohort_too_small"), (try list(Array(members.prefix(1))), "cohort_too_small"),
            (try list(members), "cohort_too_large"), (good + [0], "invalid_list"),
            (Array(good.dropLast()), "invalid_list"),
            (Array(good[1200...]) + Array(good[..<1200]), "invalid_list"),
            (Array(good[..<1200]) + Array(good[..<1200]), "duplicate_pseudonym"),
        ] as [([UInt8], String)] {
            #expect(await refusal(bytes)?.code.rawValue == expected)
        }
        // Seeds sealed for another run and for another purpose, one flipped bit, and another's pseudonym.
        let strangers = try devices(1, of: other, from: 10) + devices(1, of: evaluation, from: 11)
        var flipped = members[0].entry
        flipped.sealed.bytes[1167] ^= 1
        var renamed = members[1].entry
        renamed.pseudonym = [UInt8](repeating: 7, count: 32)
        let mixed = try SeedList([flipped, renamed, strangers[0].entry, strangers[1].entry])
        let all = await refusal(mixed.bytes)
        #expect(all?.code == .seedsUnopened && all?.places == [0, 1, 2, 3])
        let some = try SeedList([flipped, members[2].entry, strangers[0].entry])
        let wrong = some.entries.indices.filter { some.entries[$0] != members[2].entry }
        #expect(await refusal(some.bytes)?.places == wrong)
        #expect(try FileManager.default.contentsOfDirectory(atPath: fixture.directory + "/sums").isEmpty)
        #expect(try await fixture.domain().budget?.spentEpsilon == 0)
        _ = try await sum(fixture, session, good)
    }

    @Test func aPseudonymIsInSoManySumsOfARun() async throws {
        let fixture = try await HelperFixture()
        for round in 1...4 {
            var request = fixture.request(round: round)
            request.maxParticipations = 2
            let session = try await fixture.grant(request)
            // Device 9 is new in each round; the others come again and again.
            let members = try devices(2, of: session) + devices(1, of: session, from: 9 + round)
            guard round > 2 else {
                _ = try await sum(fixture, session, try list(members))
                try await fixture.helper.deleteSum(session.session, of: HelperFixture.server)
                continue
            }
            do {
                _ = try await sum(fixture, session, try list(members))
                Issue.record("the cap was passed")
            } catch let error as SecureAggregationError {
                #expect(error.code == .participationCap)
                let places = try SeedList(members.map(\.entry)).entries.indices.filter { place in
                    let pseudonym = try SeedList(members.map(\.entry)).entries[place].pseudonym
                    return members.prefix(2).contains { $0.pseudonym == pseudonym }
                }
                #expect(error.places == places)
            }
            let fresh = try devices(2, of: session, from: 100 * round)
            _ = try await sum(fixture, session, try list(fresh))
            try await fixture.helper.deleteSum(session.session, of: HelperFixture.server)
        }
        // Another run counts from the beginning.
        let other = try await fixture.grant(fixture.request(run: "run_2"))
        _ = try await sum(fixture, other, try list(try devices(2, of: other)))
    }

    // MARK: - What is left on the disk

    /// After the end of a session, however it ended, nothing in the helper's directory opens a seed or is one.
    @Test func afterItsEndNothingOpensASessionsSeeds() async throws {
        let fixture = try await HelperFixture(epsilon: 100)
        for (round, end) in ["sum", "cancel", "expiry", "stop"].enumerated() {
            let session = try await fixture.grant(fixture.request(round: round + 1, noiseMultiplier: 1))
            let members = try devices(3, of: session, salt: end)
            let secret = try Data(contentsOf: URL(fileURLWithPath: fixture.keyPath(session)))
            // While it is open, both disks together do open it: the test would see a copy.
            let key = try SessionKey(stored: secret)
            let open = key.open(
                members[0].entry.sealed,
                session: try session.parsed.session,
                pseudonym: members[0].pseudonym
            )
            #expect(open == members[0].seed)
            #expect(try fixture.everyFile().contains { $0.bytes.range(of: secret) != nil })
            switch end {
            case "sum": _ = try await sum(fixture, session, try list(members))
            case "cancel": try await fixture.helper.cancelSession(session.session, of: HelperFixture.server)
            case "expiry":
                fixture.clock.advance(by: 8 * 86_400)
                try await fixture.helper.tick()
            default:
                // A stop between the transaction and the erasure leaves the file; the next start erases it.
                try await fixture.helper.cancelSession(session.session, of: HelperFixture.server)
                try secret.write(to: URL(fileURLWithPath: fixture.keyPath(session)))
                try secret.write(to: URL(fileURLWithPath: fixture.directory + "/keys/x.part"))
                try await fixture.restart()
            }
            for (name, bytes) in try fixture.everyFile() {
                for half in [secret.prefix(16), secret.suffix(16)] {
                    #expect(bytes.range(of: half) == nil, "\(end): \(name)")
                }
                for member in members { #expect(bytes.range(of: member.seed) == nil, "\(end): \(name)") }
            }
        }
    }

    /// A one-hot update cannot be guessed from what the helper has: the list says nothing of it.
    @Test func theHelperHasNothingOfTheMaskedUpdates() async throws {
        let fixture = try await HelperFixture()
        let session = try await fixture.grant(fixture.request(coordinates: 64))
        let document = try session.parsed
        var oneHot = [Int64](repeating: 0, count: 64)
        oneHot[7] = 1
        let members = try [Device(0, document, oneHot), Device(1, document, oneHot)]
        _ = try await sum(fixture, session, try list(members))
        for (name, bytes) in try fixture.everyFile() {
            for member in members {
                #expect(bytes.range(of: Data(member.masked)) == nil, "\(name)")
                let digest = Data(SHA256.hash(data: Data(member.masked)))
                #expect(bytes.range(of: digest) == nil, "\(name)")
            }
        }
    }

    /// A restored directory has no keys: its sessions end, and their charge stays, since another history may have summed.
    @Test func aRestoreNeverRevivesASession() async throws {
        let fixture = try await HelperFixture(epsilon: 100)
        let session = try await fixture.grant(fixture.request(noiseMultiplier: 1))
        let members = try devices(2, of: session)
        let reserved = try #require(try await fixture.domain().budget?.reservedEpsilon)
        try FileManager.default.removeItem(atPath: fixture.keyPath(session))
        try await fixture.restart()
        #expect(try await fixture.helper.sessionView(session.session, of: HelperFixture.server).state == .expired)
        #expect(try await fixture.domain().budget?.spentEpsilon == reserved)
        #expect(await code { _ = try await self.sum(fixture, session, try list(members)) } == "session_expired")
    }

    /// A whole directory is put back, keys and all, and only the ledger's second record on another disk knows better.
    @Test func aLedgerThatWentBackStopsSessionsUntilItIsAcknowledged() async throws {
        let elsewhere = try TemporaryDirectory()
        let fixture = try await HelperFixture(epsilon: 100) { $0.ledgerHeadPath = elsewhere.path + "/head" }
        let session = try await fixture.grant(fixture.request(noiseMultiplier: 1))
        let members = try devices(2, of: session)
        let saved = elsewhere.path + "/saved"
        // Whatever is in the log is in the copy too.
        try FileManager.default.copyItem(atPath: fixture.directory, toPath: saved)
        _ = try await sum(fixture, session, try list(members))
        let second = try await fixture.grant(fixture.request(round: 2, noiseMultiplier: 1))
        _ = try await sum(fixture, second, try list(try devices(2, of: second)))
        let spent = try #require(try await fixture.domain().budget?.spentEpsilon)
        let configuration = fixture.configuration
        fixture.helper = try await HelperFixture().helper
        try FileManager.default.removeItem(atPath: fixture.directory)
        try FileManager.default.moveItem(atPath: saved, toPath: configuration.dataDirectory)
        try await fixture.restart()
        #expect(try await fixture.helper.status().ledgerRecord == "alarm")
        #expect(await code { _ = try await self.sum(fixture, session, try list(members)) } == "session_expired")
        #expect(!FileManager.default.fileExists(atPath: fixture.keyPath(session)))
        #expect(
            await code { _ = try await fixture.grant(fixture.request(round: 3, noiseMultiplier: 1)) }
                == "ledger_rolled_back"
        )
        #expect(try await fixture.helper.acknowledge(reason: "restored").ledgerRecord == "kept")
        #expect(
            try #require(try await fixture.domain().budget?.spentEpsilon) > spent * (1 - 1e-9),
            "what was lost is charged again"
        )
        _ = try await fixture.grant(fixture.request(round: 3, noiseMultiplier: 1))
        try await fixture.restart()
        #expect(try await fixture.helper.status().ledgerRecord == "kept")
    }

    // MARK: - Disks

    /// What the disk refuses is refused, nothing was released, and the same request goes on when the disk is back.
    @Test func diskFaultsLoseNothing() async throws {
        let elsewhere = try TemporaryDirectory()
        let heads = elsewhere.path + "/heads"
        try FileManager.default.createDirectory(atPath: heads, withIntermediateDirectories: true)
        let fixture = try await HelperFixture(epsilon: 100) { $0.ledgerHeadPath = heads + "/head" }
        let session = try await fixture.grant(fixture.request(noiseMultiplier: 1))
        let members = try list(try devices(2, of: session))
        let (sums, keys) = (fixture.directory + "/sums", fixture.directory + "/keys")
        try Self.take(away: sums)
        #expect(await code { _ = try await self.sum(fixture, session, members) } == "storage_failed")
        let spent = try await fixture.domain().budget?.spentEpsilon
        #expect(spent == 0)
        try Self.bring(back: sums)
        try Self.take(away: keys)
        #expect(await code { _ = try await self.sum(fixture, session, members) } == "storage_failed")
        let second = try fixture.request(round: 2, noiseMultiplier: 1)
        #expect(await code { _ = try await fixture.grant(second) } == "storage_failed")
        try Self.bring(back: keys)
        let reserved = try #require(try await fixture.domain().budget?.reservedEpsilon)
        _ = try await sum(fixture, session, members)
        let charged = try await fixture.domain().budget?.spentEpsilon
        #expect(charged == reserved)
        try Self.take(away: heads)
        // The record is looked at before each grant.
        #expect(await code { _ = try await fixture.grant(second) } == "ledger_record_unwritable")
        let third = try fixture.request(round: 3, noiseMultiplier: 1)
        #expect(await code { _ = try await fixture.grant(third) } == "ledger_record_unwritable")
        try Self.bring(back: heads)
        _ = try await fixture.grant(fixture.request(round: 3, noiseMultiplier: 1))
        try await fixture.restart()
        #expect(try await fixture.helper.status().ledgerRecord == "kept")
    }

    private static func take(away path: String) throws {
        try FileManager.default.moveItem(atPath: path, toPath: path + ".away")
    }

    private static func bring(back path: String) throws {
        try FileManager.default.moveItem(atPath: path + ".away", toPath: path)
    }
}
