import DifferentialPrivacy
import Foundation
import Tensors
import WireFormat

/// What a run must be for its population's budget, asked before it is made.
extension PrivacyBudgets {
    /// δ of 1/N or more would allow publishing one client's data whole.
    static func checkDelta(of population: PopulationRecord, clientCount count: Int) throws(CoordinationError) {
        guard let delta = population.budgetDelta else { return }
        guard count < 2 || delta < 1 / Double(count) else {
            throw CoordinationError(
                .unprocessable,
                "delta_too_large",
                "the budget's delta of \(delta) is not less than 1/\(count), the share of one client: a mechanism that "
                    + "publishes one client's data whole would satisfy it; make a population with a delta under "
                    + "\(pow(Double(count), -1.1))"
            )
        }
    }

    /// Refuses a private run without a budget, and one without privacy that would void a budget.
    static func checkMode(
        of specification: RunSpecification,
        _ population: PopulationRecord
    ) throws(CoordinationError) {
        let mode = specification.privacy.mode
        guard mode == .none || population.budgetEpsilon != nil else {
            throw CoordinationError(
                .unprocessable,
                "population_without_budget",
                "mode \(mode) needs a population with a privacy budget; '\(population.name)' has none"
            )
        }
        guard mode != .none || population.budgetEpsilon == nil else {
            throw CoordinationError(
                .unprocessable,
                "budget_requires_privacy",
                "'\(population.name)' has a privacy budget, and a run without privacy would void it: set privacy.mode"
            )
        }
    }

    /// Refuses a mechanism that is not proven for the model's size, when the run is made and not after its first round.
    static func checkNoise(of specification: RunSpecification, layout: ParameterLayout) throws(CoordinationError) {
        guard specification.privacy.addsNoise else { return }
        let layout = specification.training.usesControlVariates ? ControlVariates.jointLayout(layout) : layout
        do {
            let terms = try ReleaseTerms(
                specification,
                layout: layout,
                clippingNorm: specification.privacy.clipping.norm
            )
            _ = try terms.adaptive?.countGrid
            if specification.hasPrivateEvaluation { _ = try EvaluationRelease(specification.evaluation) }
            _ = try PrivacyCharge(of: specification, parameterCount: layout.parameterCount).release(count: 1)
        } catch {
            throw CoordinationError(.unprocessable, "privacy_invalid", "the noise cannot be made: \(error)")
        }
    }

    /// What the cost of a plan of a population is computed from, now.
    func basis(of population: PopulationRecord) -> PlanBasis {
        PlanBasis(population, ledger.account(population.id), head: ledger.populationHead(population.id))
    }
}

extension PrivacyBudgets {
    /// Where the ledger stands.
    var state: LedgerStateView {
        LedgerStateView(
            rows: ledger.rows.count,
            head: ledger.head,
            alarm: trust.alarm?.reason,
            record: trust.word,
            recordReason: trust.trouble?.reason,
            populations: ledger.chains.keys.sorted().compactMap { ledger.populationHead($0) }
        )
    }

    /// Everything that an outside accountant needs but the rows.
    ///
    /// - Parameters:
    ///   - population: The population.
    ///   - status: What it has of its budget.
    ///   - participations: Clients by how often each was drawn, by run.
    /// - Returns: The document without rows.
    func audit(
        of population: PopulationRecord,
        _ status: BudgetStatus,
        participations: [String: [String: Int]]
    ) -> LedgerAuditDocument {
        LedgerAuditDocument(
            population: population.id,
            name: population.name,
            relation: status.relation,
            claim: status.claim,
            budget: .init(epsilon: status.epsilon, delta: status.delta, accountant: status.accountant),
            isAdaptive: status.isAdaptive,
            spentEpsilon: status.spentEpsilon,
            reservedEpsilon: status.reservedEpsilon,
            remainingEpsilon: status.remainingEpsilon,
            roundsThatFit: status.roundsThatFit,
            participations: participations,
            head: ledger.head,
            populationHead: ledger.populationHead(population.id),
            rows: []
        )
    }
}
