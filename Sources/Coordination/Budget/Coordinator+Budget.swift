import DifferentialPrivacy
import Foundation
import Tensors
import WireFormat

extension Coordinator {
    /// The population's ε with the charges that count, at its δ.
    private func epsilon(of charges: [String: ChargedRun], delta: Double) -> Double {
        let ordered = charges.sorted { $0.key < $1.key }.map(\.value)
        return ParticipationCappedAccountant.epsilon(
            of: ordered.map {
                .init(
                    noiseMultiplier: $0.noiseMultiplier,
                    participationCap: $0.participationCap,
                    roundCount: $0.roundCount,
                    parameterCount: $0.parameterCount
                )
            },
            delta: delta
        )
    }

    /// Makes the reservation for a round that is about to open, or refuses.
    ///
    /// - Throws: ``CoordinationError`` with code `budget_exhausted` when the round could overdraw the budget.
    func reserve(run id: String, round: Int, attempt: Int) throws -> LedgerRow {
        let run = try runState(id)
        let population = try populationRecord(run.record.populationId)
        guard let budget = population.budgetEpsilon, let delta = population.budgetDelta else {
            throw CoordinationError(.unprocessable, "population_without_budget", "the population has no privacy budget")
        }
        let charge = try charge(of: run)
        let total = epsilon(of: ledger.charges(population: population.id, additional: (id, charge)), delta: delta)
        guard total <= budget else {
            throw CoordinationError(
                .conflict,
                "budget_exhausted",
                "round \(round) would bring the population to epsilon \(total) of \(budget) at delta \(delta); nothing was opened"
            )
        }
        return ledger.append(
            population: population.id,
            run: id,
            round: round,
            attempt: attempt,
            state: "reserved",
            charge: charge,
            epsilonAfter: total,
            at: now
        )
    }

    /// Ends a reservation: `committed` in the transaction that publishes, `released` when nothing left the server.
    func settle(run id: String, round: RoundRecord, state: String) -> LedgerRow {
        guard let run = runs[id] else { preconditionFailure("the run is known") }
        // As it was reserved: it must be possible to settle also where the model's file is missing.
        let reservation = ledger.charge(run: id, round: round.number, attempt: round.attempt)
        guard let charge = reservation ?? (try? charge(of: run)) else { preconditionFailure("the run has a charge") }
        let population = populations[run.record.populationId]
        var row = ledger.append(
            population: run.record.populationId,
            run: id,
            round: round.number,
            attempt: round.attempt,
            state: state,
            charge: charge,
            epsilonAfter: 0,
            at: now
        )
        let total = epsilon(
            of: ledger.charges(population: run.record.populationId),
            delta: population?.budgetDelta ?? 1e-5
        )
        // The total is informative and not part of the row's hash.
        row.epsilonAfter = total
        ledger.noteTotal(total)
        return row
    }

    private func charge(of run: RunState) throws -> PrivacyCharge {
        PrivacyCharge(
            mode: run.specification.privacy.mode,
            noiseMultiplier: run.specification.privacy.noiseMultiplier,
            participationCap: run.specification.cohort.maxParticipations,
            parameterCount: try uploadLayout(of: run.record.id).parameterCount
        )
    }

    /// Refuses a model too large for the sampler's guarantee, when the run is made and not after its first round.
    func checkNoiseDimension(_ specification: RunSpecification, layout: ParameterLayout) throws {
        guard specification.privacy.mode != "none" else { return }
        let layout = specification.training.usesControlVariates ? ControlVariates.jointLayout(layout) : layout
        do {
            _ = try NoiseGrid(
                clippingNorm: specification.privacy.clipping.norm,
                noiseMultiplier: specification.privacy.noiseMultiplier,
                parameterCount: layout.parameterCount,
                isLocal: specification.privacy.mode == "local"
            )
        } catch {
            throw CoordinationError(.unprocessable, "privacy_invalid", "the noise cannot be made: \(error)")
        }
    }

    func budgetStatus(of population: PopulationRecord) -> BudgetStatus? {
        guard let budget = population.budgetEpsilon, let delta = population.budgetDelta else { return nil }
        let all = ledger.charges(population: population.id)
        let spent = epsilon(of: ledger.charges(population: population.id, committedOnly: true), delta: delta)
        let withReserved = epsilon(of: all, delta: delta)
        var fitting: [String: Int?] = [:]
        for id in runOrder {
            guard let run = runs[id], run.record.populationId == population.id,
                run.specification.privacy.mode != "none", ["created", "running", "paused"].contains(run.record.state),
                let charge = try? charge(of: run)
            else { continue }
            fitting[id] = roundsThatFit(charges: all, run: id, charge: charge, budget: budget, delta: delta)
        }
        return BudgetStatus(
            epsilon: budget,
            delta: delta,
            spentEpsilon: spent,
            reservedEpsilon: withReserved - spent,
            remainingEpsilon: max(0, budget - withReserved),
            roundsThatFit: fitting
        )
    }

    /// How many more rounds the budget admits; `nil` when the cap of participations stops the cost from growing.
    private func roundsThatFit(
        charges: [String: ChargedRun],
        run: String,
        charge: PrivacyCharge,
        budget: Double,
        delta: Double
    ) -> Int? {
        var trial = charges
        var entry =
            trial[run]
            ?? ChargedRun(
                noiseMultiplier: charge.noiseMultiplier,
                participationCap: charge.participationCap,
                roundCount: 0,
                parameterCount: charge.parameterCount
            )
        let start = entry.roundCount
        func admits(_ extra: Int) -> Bool {
            entry.roundCount = start + extra
            trial[run] = entry
            return epsilon(of: trial, delta: delta) <= budget
        }
        guard admits(1) else { return 0 }
        let limit = 1_000_000
        if admits(limit) { return nil }
        var (lower, upper) = (1, limit)
        while upper - lower > 1 {
            let middle = (lower + upper) / 2
            if admits(middle) { lower = middle } else { upper = middle }
        }
        return lower
    }
}
