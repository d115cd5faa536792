import DifferentialPrivacy
import Foundation
import TestBenches
import TestSupport
import Testing
import WireFormat

@testable import Coordination

/// Ledgers that somebody else wrote, with numbers that no version makes: refused by name, never a trap and never memory that such a
/// number names.
@Suite(.timeLimit(.minutes(10)))
struct ForeignLedgerTests {
    private static let gaussian =
        #""kind":"gaussian","mode":"central","relation":"zero_out","noiseMultiplier":4,"parameterCount":4,"participationCap":0"#
    private static let banded =
        #""kind":"banded_matrix","mode":"central","relation":"zero_out","noiseMultiplier":4,"parameterCount":4,"participationCap":0,"band":[1,0.5]"#

    static let events: [String] = [
        "{\(banded),\"minSeparation\":9223372036854775807}",
        "{\(banded),\"minSeparation\":2,\"count\":1000000000000}",
        "{\(banded),\"minSeparation\":2,\"count\":9223372036854775807}",
        "{\(banded.replacing("[1,0.5]", with: "[]")),\"minSeparation\":2}",
        "{\(gaussian),\"count\":9223372036854775807}", "{\(gaussian),\"count\":-1}", "{\(gaussian),\"count\":0}",
        "{\(gaussian.replacing("\"participationCap\":0", with: "\"participationCap\":-1"))}",
        "{\(gaussian.replacing("\"participationCap\":0", with: "\"participationCap\":9223372036854775807"))}",
        "{\(gaussian.replacing("\"parameterCount\":4", with: "\"parameterCount\":9223372036854775807"))}",
        "{\(gaussian.replacing("\"parameterCount\":4", with: "\"parameterCount\":-1"))}",
        "{\(gaussian.replacing("\"noiseMultiplier\":4", with: "\"noiseMultiplier\":0"))}",
    ]

    /// Two rows of it, whose hashes fit.
    private static func rows(_ event: String) throws -> [LedgerRow] {
        var ledger = PrivacyLedger()
        let note = LedgerNote(kind: .budget, epsilon: 8, delta: 1e-5, accountant: .auto)
        let first = try ledger.append(
            population: "pop_1",
            run: "",
            round: 1,
            attempt: 0,
            state: .committed,
            event: note.canonical,
            epsilonAfter: 0,
            at: Date(timeIntervalSince1970: 1_700_000_000)
        )
        var rows = [first]
        for (round, state) in [(0, ChargeState.committed), (0, .committed), (1, .reserved)] {
            var row = first
            let last = rows[rows.count - 1]
            row.sequence = rows.count + 1
            (row.runId, row.round, row.attempt, row.state, row.event) = ("run_1", round, rows.count, state, event)
            row.previousHash = last.rowHash
            row.populationNumber = rows.count + 1
            row.populationPreviousHash = LedgerChain.head(
                after: last.populationPreviousHash ?? "",
                number: last.populationNumber ?? 0,
                link: PrivacyLedger.link(last)
            )
            row.rowHash = PrivacyLedger.hash(row)
            rows.append(row)
        }
        return rows
    }

    @Test(arguments: events)
    func aChargeThatNoVersionMakesIsRefusedWhereverItIsRead(_ event: String) throws {
        let rows = try Self.rows(event)
        let error = #expect(throws: CoordinationError.self) { try PrivacyLedger(verifying: rows) }
        #expect(
            error?.code == "ledger_broken" && error?.message.contains("does not know") == true,
            "\(error?.message ?? "")"
        )
        let lines = try rows.map { row in
            var text = String(
                decoding: try WireCoding.encode(LedgerAuditDocument.Row(row, isShown: true)),
                as: UTF8.self
            )
            text.removeLast()
            return text + #","created_at":"2026-01-02T03:04:05.678Z"}"#
        }
        let audit = try LedgerAudit(Data(lines.joined(separator: "\n").utf8))
        #expect(audit.problems.contains { $0.contains("unknown kind") }, "\(audit.problems)")
        // The second record is one of those that are no record.
        let directory = try TemporaryDirectory()
        let record = """
            {"sequence":1,"rowHash":"\(rows[0].rowHash)",
             "groups":[{"population":"pop_1","run":"run_1","count":1,"charge":\(event)}]}
            """
        try record.write(toFile: directory.path + "/head", atomically: true, encoding: .utf8)
        let damaged = #expect(throws: CoordinationError.self) { try LedgerHead.read(path: directory.path + "/head") }
        #expect(damaged?.code == LedgerHead.damaged)
    }

    /// A start on such a database serves nothing, and says why.
    @Test(arguments: [events[0], events[1], events[4]])
    func aStartOnSuchADatabaseSaysThatTheLedgerIsBroken(_ event: String) async throws {
        let store = InMemoryRunStore()
        try store.commit(try Self.rows(event).map { .ledger($0) })
        let error = await refusal { try await Bench.start(try TemporaryDirectory(), TestClock(), store) }
        #expect(error?.code == "ledger_broken", "\(error?.code ?? "started")")
    }

    /// So does a row whose time is none.
    @Test func aRowWithoutATimeIsBroken() async throws {
        var rows = try Self.rows("{\(Self.gaussian)}")
        rows[3].createdAt = Date(timeIntervalSince1970: 1e300)
        let error = #expect(throws: CoordinationError.self) { try PrivacyLedger(verifying: rows) }
        #expect(error?.code == "ledger_broken")
    }

    @Test func aNumberOfARowThatHasNoNextIsNoTrap() throws {
        let row = LedgerAuditDocument.Row(try Self.rows("{\(Self.gaussian)}")[0], isShown: true)
        var text = String(decoding: try WireCoding.encode(row), as: UTF8.self)
            .replacing(#""sequence":1"#, with: #""sequence":9223372036854775807"#)
        text.removeLast()
        let line = text + #","created_at":"2026-01-02T03:04:05.678Z"}"#
        let audit = try LedgerAudit(Data((line + "\n" + line).utf8), delta: 1e-5)
        #expect(!audit.problems.isEmpty)
    }

    /// What versions make is taken: the largest numbers of run files.
    @Test func chargesOfTheLargestRunsAreTaken() throws {
        var charge = PrivacyCharge(
            kind: .bandedMatrix,
            mode: .central,
            noiseMultiplier: 4,
            participationCap: 1_000_000,
            parameterCount: 1 << 40
        )
        charge.band = BandedReleases.coefficients(band: 64)
        charge.minSeparation = 1_000_000
        try charge.validate()
        _ = try charge.release(count: 1_000_000)
        #expect(throws: PrivacyError.self) { try charge.release(count: 1_000_000_000_000) }
    }
}
