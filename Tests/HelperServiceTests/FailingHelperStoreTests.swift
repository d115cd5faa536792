import Coordination
import Crypto
import Foundation
import HelperService
import Synchronization
import TestSupport
import Testing
import WireFormat

#if canImport(Glibc)
import Glibc
#endif

/// Transactions whose sync fails, stored or not, and calls of the disk that fail: keys and sums are always those of the database.
@Suite(.timeLimit(.minutes(10)))
struct FailingHelperStoreTests {
    enum Step: String, CaseIterable {
        case grant, sum, cancel, expire, look, deleteSum, expireSum, domain, policy, token, audit
    }

    private enum Then: CaseIterable { case tick, restart, again }

    /// Each transaction of a session fails in both ways; then memory, files and database agree, and no second sum is made.
    @Test(arguments: Step.allCases)
    func afterAFailedTransactionFilesAreThoseOfTheDatabase(_ step: Step) async throws {
        for fault in StoreFault.allCases {
            for then in Then.allCases {
                let what = Comment(rawValue: "\(step.rawValue) \(fault) \(then)")
                let fixture = try await HelperFixture(epsilon: 100)
                let server = HelperFixture.server
                var request = fixture.request(noiseMultiplier: 1)
                request.expiresInS = 100
                if step == .grant {
                    fixture.faults.fail(fault)
                    #expect(await code { _ = try await fixture.grant(request) } != nil, what)
                }
                let view: HelperSessionView
                do { view = try await fixture.grant(request) } catch {
                    Issue.record("\(what): \(error)")
                    return
                }
                let bytes = try list(try devices(3, of: view))
                let helper = fixture.helper
                if step == .deleteSum || step == .expireSum {
                    _ = try await helper.makeSum(view.session, of: server, list: bytes)
                }
                if [.expire, .look, .expireSum].contains(step) { fixture.clock.advance(by: 101) }
                func perform() async throws {
                    switch step {
                    case .grant: break
                    case .sum: _ = try await fixture.helper.makeSum(view.session, of: server, list: bytes)
                    case .cancel: try await fixture.helper.cancelSession(view.session, of: server)
                    case .expire, .expireSum: try await fixture.helper.tick()
                    case .look: _ = try await fixture.helper.sessionView(view.session, of: server)
                    case .deleteSum: try await fixture.helper.deleteSum(view.session, of: server)
                    case .domain:
                        _ = try await fixture.helper.createDomain(
                            HelperDomainRequest(name: "voices", budget: nil, policy: HelperPolicy())
                        )
                    case .policy:
                        _ = try await fixture.helper.changeDomain("keyboards", HelperDomainChange(epsilon: 50))
                    case .token: try await fixture.helper.ensureToken(String(repeating: "t", count: 40), role: .viewer)
                    case .audit:
                        let trail = AuditTrail(action: "a", target: "t", address: "1.2.3.4", requestID: "r")
                        trail.identify(tokenID: "tok", name: "n", role: .viewer)
                        await fixture.helper.audit(trail, refusal: "refused")
                    }
                }
                if step != .grant {
                    fixture.faults.fail(fault)
                    let found = await code { try await perform() }
                    #expect(found != nil || step == .audit, what)
                    #expect(fixture.faults.isOver, what)
                }
                switch then {
                case .tick: try await fixture.helper.tick()
                case .restart: try await fixture.restart()
                case .again: _ = await code { try await perform() }
                }
                try await fixture.helper.tick()
                #expect(try fixture.filesAreThoseOfTheDatabase(), what)
                let state = try await fixture.helper.sessionView(view.session, of: server).state
                #expect(try fixture.stored().states[view.session] == state.rawValue, what)
                // Whatever has failed, the next transaction passes.
                if state == .granted || state == .summed {
                    _ = try await fixture.helper.makeSum(view.session, of: server, list: bytes)
                    #expect(try fixture.filesAreThoseOfTheDatabase(), what)
                }
                let budget = try #require(try await fixture.domain().budget)
                let isSummed = [.sum, .deleteSum, .expireSum].contains(step) || state == .granted
                if isSummed { #expect(budget.spentEpsilon > 1 && budget.reservedEpsilon == 0, what) }
                if state == .cancelled || state == .expired { #expect(budget.spentEpsilon == 0, what) }
                #expect(try await fixture.helper.status().ledgerRecord == "kept", what)
            }
        }
    }

    /// A sum that was not committed is overwritten, and the same list has the same bytes when it is summed again.
    @Test func aSumThatIsMadeAgainHasTheSameNoise() async throws {
        for end in ["fails", "stops"] {
            let fixture = try await HelperFixture(epsilon: 100)
            let view = try await fixture.grant(fixture.request(coordinates: 2000, noiseMultiplier: 1))
            let bytes = try list(try devices(3, of: view))
            let other = try list(try devices(2, of: view))
            let sums = fixture.directory + "/sums"
            let seen = Mutex<[Data]>([])
            func uncommitted() -> @Sendable () -> Void {
                {
                    for name in (try? FileManager.default.contentsOfDirectory(atPath: sums)) ?? [] {
                        guard let data = FileManager.default.contents(atPath: sums + "/" + name) else { continue }
                        seen.withLock { $0.append(data) }
                    }
                }
            }
            fixture.faults.fail(.notStored, whileFailing: uncommitted())
            let found = await code {
                _ = try await fixture.helper.makeSum(view.session, of: HelperFixture.server, list: bytes)
            }
            #expect(found != nil)
            let first = try #require(seen.withLock { $0.first })
            #expect(first.count == 8000)
            if end == "stops" {
                // A kill leaves the file.
                try first.write(to: URL(fileURLWithPath: sums + "/sum_left"))
                try await fixture.restart()
            }
            for (name, data) in try fixture.everyFile() {
                #expect(data.range(of: first.prefix(64)) == nil, "\(end): \(name)")
            }
            // Another list would have other noise.
            fixture.faults.fail(.notStored, whileFailing: uncommitted())
            _ = await code {
                _ = try await fixture.helper.makeSum(view.session, of: HelperFixture.server, list: other)
            }
            #expect(seen.withLock { $0.last } != first)
            let sum = try await fixture.helper.makeSum(view.session, of: HelperFixture.server, list: bytes)
            #expect(try Data(contentsOf: URL(fileURLWithPath: sum.path)) == first)
        }
    }

    // MARK: - Calls of the disk

    /// The file is still there and whole, or it was overwritten: no failed call is taken for an erasure, then or at the next try.
    @Test func whateverCallOfAnErasureFailsTheNextOneErases() async throws {
        let place = try TemporaryDirectory()
        defer { withExtendedLifetime(place) {} }
        let directory = place.path
        let calls = ["open", "status", "write", "sync", "remove"]
        for call in calls {
            for number in [EIO, EACCES, EPERM, EMFILE, ENFILE, ENOSPC, EROFS, EISDIR, ENXIO, EBUSY, EINTR, ENOMEM] {
                let path = directory + "/\(call)-\(number).key"
                let secret = Data((0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ 1) })
                try secret.write(to: URL(fileURLWithPath: path))
                let descriptor = open(path, O_RDONLY)
                defer { close(descriptor) }
                var failing = SecretFile.Calls()
                let removals = Mutex(0)
                switch call {
                case "open":
                    failing.open = { _ in
                        errno = number
                        return -1
                    }
                case "status":
                    failing.byteCount = { _ in
                        errno = number
                        return nil
                    }
                case "write":
                    failing.write = { _, _, _ in
                        errno = number
                        return false
                    }
                case "sync":
                    failing.sync = { _ in
                        errno = number
                        return false
                    }
                default:
                    // The name goes, and the directory's sync fails.
                    failing.remove = {
                        unlink($0)
                        throw POSIXError(.init(rawValue: number) ?? .EIO)
                    }
                }
                #expect(throws: (any Error).self) { try SecretFile.erase(path, calls: failing) }
                #expect(FileManager.default.fileExists(atPath: path) == (call != "remove"), "\(call) \(number)")
                var counting = SecretFile.Calls()
                counting.remove = { path in
                    removals.withLock { $0 += 1 }
                    unlink(path)
                }
                try SecretFile.erase(path, calls: counting)
                #expect(removals.withLock { $0 } == 1, "a removal that may not be on the disk is brought there")
                var found = [UInt8](repeating: 1, count: secret.count)
                #expect(pread(descriptor, &found, found.count, 0) == secret.count)
                #expect(found.allSatisfy { $0 == 0 }, "\(call) \(number)")
            }
        }
    }

    /// A file system of its own has `lost+found`.
    @Test func keysAndSumsMayHaveFileSystemsOfTheirOwn() async throws {
        let fixture = try await HelperFixture(epsilon: 100)
        for part in ["keys", "sums"] {
            let path = fixture.directory + "/\(part)/lost+found"
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
            try Data("x".utf8).write(to: URL(fileURLWithPath: path + "/#12"))
            try Data("x".utf8).write(to: URL(fileURLWithPath: fixture.directory + "/\(part)/stray"))
        }
        try await fixture.restart()
        #expect(try fixture.names("keys") == ["lost+found"] && fixture.names("sums") == ["lost+found"])
        let view = try await fixture.grant(fixture.request(noiseMultiplier: 1))
        let bytes = try list(try devices(2, of: view))
        _ = try await fixture.helper.makeSum(view.session, of: HelperFixture.server, list: bytes)
    }

    /// A second program on the same database is noticed by the first transaction that it did not make.
    @Test func anotherProgramOnTheDatabaseIsNoticed() async throws {
        let fixture = try await HelperFixture()
        let first = fixture.helper
        try await fixture.restart()
        for round in 1...3 { _ = try await fixture.grant(fixture.request(round: round)) }
        let request = fixture.request(round: 9)
        let found = await code { _ = try await first.createSession(request, by: HelperFixture.server) }
        #expect(found != nil)
        #expect(try fixture.names("keys").count == 3)
    }
}
