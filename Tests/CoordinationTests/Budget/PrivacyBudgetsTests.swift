import DifferentialPrivacy
import Foundation
import Testing
import WireFormat

@testable import Coordination

/// The budgets as a value: no store, clock or coordinator.
struct PrivacyBudgetsTests {
    private let start = Date(timeIntervalSince1970: 1_800_000_000)

    private func population(_ id: String = "p", epsilon: Double? = 8, delta: Double? = 1e-5) -> PopulationRecord {
        PopulationRecord(id: id, name: id, budgetEpsilon: epsilon, budgetDelta: delta, createdAt: start)
    }

    private func table(_ records: PopulationRecord...) -> PopulationTable {
        var table = PopulationTable()
        for record in records { table.set(record) }
        return table
    }

    private func charge(z: Double = 4, cap: Int = 0) -> PrivacyCharge {
        PrivacyCharge(
            kind: .gaussian,
            mode: .central,
            noiseMultiplier: z,
            participationCap: cap,
            parameterCount: 10
        )
    }

    private func attempt(_ round: Int, _ attempt: Int = 1, run: String = "r") -> ChargedAttempt {
        ChargedAttempt(run: run, round: round, attempt: attempt)
    }

    private func code(_ body: () throws -> Void) -> String? {
        do { try body() } catch { return (error as? CoordinationError)?.code ?? "\(error)" }
        return nil
    }

    @Test("Rounds are reserved until the budget admits no more, and a released one makes room again.")
    func reservations() throws {
        var budgets = PrivacyBudgets()
        let population = population(epsilon: 2)
        var opened = 0
        let refused = code {
            while opened < 1000 {
                _ = try budgets.reserve(
                    charge(),
                    for: attempt(opened + 1),
                    of: population,
                    clientCount: 9,
                    at: start
                )
                opened += 1
            }
        }
        #expect(refused == "budget_exhausted" && (2..<20).contains(opened))
        #expect(budgets.ledger.rows.count == opened)
        let released = try budgets.settle(charge(), for: attempt(opened), of: population, as: .released, at: start)
        #expect(released.epsilonAfter < 2)
        let again = try budgets.reserve(
            charge(),
            for: attempt(opened, 2),
            of: population,
            clientCount: 9,
            at: start
        )
        #expect(again.epsilonAfter <= 2 && again.state == .reserved)
    }

    @Test("A reservation needs a budget, a delta under 1/N, and a ledger that is believed.")
    func refusals() {
        var budgets = PrivacyBudgets()
        func reserve(_ population: PopulationRecord, clients: Int = 9) -> String? {
            code {
                _ = try budgets.reserve(charge(), for: attempt(1), of: population, clientCount: clients, at: start)
            }
        }
        #expect(reserve(population(epsilon: nil, delta: nil)) == "population_without_budget")
        #expect(reserve(population(delta: 0.01), clients: 100) == "delta_too_large")
        budgets.trust.alarm = LedgerAlarm("restored", nil, budgets.ledger)
        #expect(reserve(population()) == "ledger_rolled_back")
        budgets.trust.alarm = nil
        _ = budgets.trust.noteTrouble("no space", at: start)
        #expect(reserve(population()) == "ledger_record_unwritable")
        #expect(budgets.ledger.rows.isEmpty)
    }

    @Test("A row whose transaction failed is taken back, unless the ledger was read again meanwhile.")
    func takingBack() throws {
        var budgets = PrivacyBudgets()
        let generation = budgets.generation
        _ = try budgets.reserve(charge(), for: attempt(1), of: population(), clientCount: 9, at: start)
        let stored = budgets.ledger
        budgets.takeBack(to: 0, generation: generation)
        #expect(budgets.ledger.rows.isEmpty)
        budgets.take(stored)
        budgets.takeBack(to: 0, generation: generation)
        #expect(budgets.ledger.rows.count == 1)
    }

    @Test("A charge that another server may have gone on with moves to a plan of its own and stays.")
    func apart() throws {
        var budgets = PrivacyBudgets()
        let capped = charge(cap: 3)
        _ = try budgets.reserve(capped, for: attempt(1), of: population(), clientCount: 9, at: start)
        let rows = try budgets.settleApart(capped, for: attempt(1), of: population(), at: start)
        #expect(rows.map(\.state) == [.released, .committed] && rows.map(\.round) == [1, 0])
        #expect(budgets.ledger.account("p").count == 1)
        // Without a cap each release counts as it is.
        _ = try budgets.reserve(charge(), for: attempt(2), of: population(), clientCount: 9, at: start)
        let plain = try budgets.settleApart(charge(), for: attempt(2), of: population(), at: start)
        #expect(plain.map(\.state) == [.committed] && plain.map(\.round) == [2])
        // What is no transition leaves nothing.
        let count = budgets.ledger.rows.count
        let refused = code { _ = try budgets.settleApart(capped, for: attempt(9), of: population(), at: start) }
        #expect(refused != nil)
        #expect(budgets.ledger.rows.count == count)
    }

    @Test("The status tells spent from reserved, and changes with the population's own rows alone.")
    func status() throws {
        var budgets = PrivacyBudgets()
        var allowance = 0
        let none = budgets.status(of: population(epsilon: nil, delta: nil), plans: [], allowance: &allowance)
        #expect(none == nil)
        _ = try budgets.reserve(charge(), for: attempt(1), of: population(), clientCount: 9, at: start)
        let first = budgets.status(of: population(), plans: [], allowance: &allowance)
        let open = try #require(first)
        #expect(open.spentEpsilon == 0 && open.reservedEpsilon > 0)
        #expect(open.remainingEpsilon == 8 - open.reservedEpsilon)
        _ = try budgets.reserve(charge(), for: attempt(1), of: population("q"), clientCount: 9, at: start)
        let unchanged = budgets.status(of: population(), plans: [], allowance: &allowance)
        #expect(unchanged == open)
        _ = try budgets.settle(charge(), for: attempt(1), of: population(), as: .committed, at: start)
        let last = budgets.status(of: population(), plans: [], allowance: &allowance)
        let closed = try #require(last)
        #expect(closed.spentEpsilon == open.reservedEpsilon && closed.reservedEpsilon == 0)
    }

    @Test("A higher epsilon needs a reason, and a lower one is noticed when more is reserved.")
    func changes() throws {
        var budgets = PrivacyBudgets()
        #expect(code { try PrivacyBudgets.checkChange(of: population(), .init(epsilon: 9)) } == "reason_required")
        #expect(code { try PrivacyBudgets.checkChange(of: population(), .init(epsilon: 7)) } == nil)
        let without = population(epsilon: nil, delta: nil)
        #expect(
            code { try PrivacyBudgets.checkChange(of: without, .init(epsilon: 7)) } == "population_without_budget"
        )
        let row = try budgets.reserve(charge(), for: attempt(1), of: population(), clientCount: 9, at: start)
        let isOverdrawn = [0.5, 2].map { factor in
            budgets.isOverdrawn(population(), by: .init(epsilon: row.epsilonAfter * factor))
        }
        #expect(isOverdrawn == [true, false])
        let changed = try budgets.changing(population(), to: 9, reason: "a longer study", at: start)
        guard case .population(let record)? = changed.first, case .ledger(let note)? = changed.last else {
            Issue.record("a population and a row are stored together")
            return
        }
        #expect(record.budgetEpsilon == 9 && note.event.contains("a longer study"))
        #expect(budgets.ledger.account("p").budget?.previousEpsilon == 8)
    }

    @Test("An acknowledgement charges again what the second record knows, and lowers a budget again.")
    func acknowledgement() throws {
        var before = PrivacyBudgets()
        let populations = table(population(), population("q", epsilon: nil, delta: nil))
        _ = try before.stateBudget(of: population(), accountant: .auto, at: start)
        let restored = before.ledger
        _ = try before.changing(population(), to: 5, reason: nil, at: start)
        for round in 1...2 {
            _ = try before.reserve(charge(), for: attempt(round), of: population(), clientCount: 9, at: start)
            _ = try before.settle(charge(), for: attempt(round), of: population(), as: .committed, at: start)
        }
        let head = LedgerHead(before.ledger)

        var budgets = PrivacyBudgets()
        #expect(code { try budgets.requireLoss([]) } == "nothing_to_acknowledge")
        budgets.take(restored)
        budgets.trust.alarm = LedgerAlarm("an old backup", head, restored)
        #expect(budgets.trust.alarm?.isRecordMissing == false && budgets.trust.alarm?.commonSequence == 1)
        #expect(code { try budgets.requireLoss([]) } == nil)
        let changes = try budgets.acknowledging(reason: "the disk died", lostHeads: [], populations, at: start)
        #expect(budgets.ledger.account("p").count == 2)
        let lowered = changes.compactMap { if case .population(let record) = $0 { record.budgetEpsilon } else { nil } }
        #expect(lowered == [5])
        let known = budgets.ledger.account("p").acknowledgements
        #expect(known.count == 1 && known[0].event.contains("the disk died"))
        // A charge, a budget and a note, all of the one population that has a budget.
        #expect(budgets.ledger.rows.count == 4 && budgets.ledger.places(ofPopulation: "q").isEmpty)
    }

    @Test("A head that the ledger leads to was not lost.")
    func heads() throws {
        var budgets = PrivacyBudgets()
        _ = try budgets.stateBudget(of: population(), accountant: .auto, at: start)
        let head = try #require(budgets.ledger.populationHead("p"))
        #expect(code { try budgets.checkLost([head], table(population())) } == "nothing_to_acknowledge")
        let other = PopulationLedgerHead(population: "p", number: 9, hash: String(repeating: "a", count: 64))
        #expect(code { try budgets.checkLost([other], table(population())) } == nil)
        #expect(code { try budgets.checkLost([other], table()) } == "nothing_to_acknowledge")
    }

    @Test("Stored rows are refused when the budget or a total is not the one that they state.")
    func opening() throws {
        var budgets = PrivacyBudgets()
        let stated = try budgets.stateBudget(of: population(), accountant: .auto, at: start)
        let note = try #require(stated)
        var row = try budgets.reserve(charge(), for: attempt(1), of: population(), clientCount: 9, at: start)
        var again = PrivacyBudgets()
        try again.open([note, row], table(population()))
        #expect(code { try again.open([note, row], table(population(epsilon: 9))) } == "ledger_broken")
        row.epsilonAfter /= 2
        #expect(code { try again.open([note, row], table(population())) } == "ledger_broken")
    }

    /// A claim as the coordinator has it made.
    private func claim(_ version: ModelVersionRecord, _ budgets: inout PrivacyBudgets) throws -> PrivacyClaim? {
        switch budgets.claimState(through: version, of: population()) {
        case .known(let claim): return claim
        case .open(let place):
            let claim = try PrivacyBudgets.claim(of: Array(budgets.ledger.rows.prefix(place.rowCount)), delta: 1e-5)
            budgets.keep(claim, of: place, generation: budgets.generation)
            return claim
        }
    }

    @Test("What is proven of a version counts the charges up to it, and is found once.")
    func claims() throws {
        var budgets = PrivacyBudgets()
        var claims: [PrivacyClaim] = []
        for number in 1...2 {
            let time = start.addingTimeInterval(Double(number))
            _ = try budgets.reserve(charge(), for: attempt(number), of: population(), clientCount: 9, at: time)
            _ = try budgets.settle(charge(), for: attempt(number), of: population(), as: .committed, at: time)
            let version = ModelVersionRecord(runId: "r", version: number, sha256: "", bytes: 0, createdAt: time)
            let claim = try claim(version, &budgets)
            claims.append(try #require(claim))
        }
        #expect(claims[0].epsilon < claims[1].epsilon && claims.map(\.ledgerRows) == [2, 4])
        let first = ModelVersionRecord(
            runId: "r",
            version: 1,
            sha256: "",
            bytes: 0,
            createdAt: start.addingTimeInterval(1)
        )
        guard case .known(let again) = budgets.claimState(through: first, of: population()) else {
            Issue.record("it was made before")
            return
        }
        #expect(again == claims[0])
        let initial = ModelVersionRecord(runId: "r", version: 0, sha256: "", bytes: 0, createdAt: start)
        guard case .known(nil) = budgets.claimState(through: initial, of: population()) else {
            Issue.record("nothing was charged by then")
            return
        }
        // A ledger that was read again may be another one.
        let place = ClaimPlace(population: "p", rowCount: 2)
        budgets.keep(claims[1], of: place, generation: budgets.generation + 1)
        guard case .known(claims[0]) = budgets.claimState(through: first, of: population()) else {
            Issue.record("a claim of another ledger was kept")
            return
        }
        // What is measured of a version later belongs to it, too.
        let later = ChargedAttempt(run: "r", round: 1, attempt: 2)
        _ = try budgets.reserve(charge(), for: later, of: population(), clientCount: 9, at: start)
        _ = try budgets.settle(charge(), for: later, of: population(), as: .committed, at: start)
        let grown = try claim(first, &budgets)
        #expect(try #require(grown).epsilon > claims[1].epsilon)
    }

    @Test("Where loss distributions take more than one question may, Rényi divergences answer, which claim no less.")
    func costlyClaims() throws {
        var budgets = PrivacyBudgets()
        _ = try budgets.reserve(charge(), for: attempt(1), of: population(), clientCount: 9, at: start)
        _ = try budgets.settle(charge(), for: attempt(1), of: population(), as: .committed, at: start)
        let exact = try PrivacyBudgets.claim(of: budgets.ledger.rows, delta: 1e-5)
        let rough = try LossAllowance.$standard.withValue(0) {
            try PrivacyBudgets.claim(of: budgets.ledger.rows, delta: 1e-5)
        }
        let (least, most) = (try #require(exact), try #require(rough))
        #expect(least.epsilon <= most.epsilon)
        #expect(least.accountant == most.accountant || most.accountant == "rdp")
    }
}
