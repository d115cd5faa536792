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

    /// The specification with the noise that meets its target.
    ///
    /// - Parameters:
    ///   - specification: A run that is about to be made.
    ///   - parameterCount: Of its model, where that is known.
    ///   - population: Whose budget it spends.
    /// - Returns: The specification as it is stored.
    /// - Throws: ``CoordinationError`` with code `privacy_invalid`, or `privacy_too_costly` where its cost takes too much arithmetic.
    func calibrating(
        _ specification: RunSpecification,
        parameterCount: Int?,
        _ population: PopulationRecord
    ) throws(CoordinationError) -> RunSpecification {
        guard let delta = population.budgetDelta else { return specification }
        let account = ledger.account(population.id)
        let charge = PrivacyCharge(of: specification, parameterCount: 1)
        let allowance = account.failureAllowance(with: charge, of: "", delta: delta)
        do {
            return try LossAllowance.limited { () throws(PrivacyError) in
                let resolved = try PrivacyCalibration.resolve(
                    specification,
                    parameterCount: parameterCount,
                    delta: delta,
                    failureDelta: allowance
                )
                // Each opening of a round asks for as much: what is refused here would hold up everybody there.
                try PrivacyCalibration.checkCost(of: resolved, parameterCount: parameterCount, delta: delta)
                return resolved
            }
        } catch {
            throw Self.refusal(of: error, "the target cannot be met")
        }
    }

    /// What a caller is told of noise or a cost that is not computed.
    private static func refusal(of error: PrivacyError, _ problem: String) -> CoordinationError {
        guard error.isTooCostly else {
            return CoordinationError(.unprocessable, "privacy_invalid", "\(problem): \(error)")
        }
        return CoordinationError(
            .unprocessable,
            "privacy_too_costly",
            "what the run costs is not computed: \(error)"
        )
    }

    /// What a specification would cost its population, with everything charged before.
    ///
    /// - Throws: ``CoordinationError``: no privacy, no budget, or parameters that no accountant takes.
    func projection(
        of specification: RunSpecification,
        parameterCount: Int?,
        _ population: PopulationRecord
    ) throws(CoordinationError) -> PrivacyProjection {
        guard specification.privacy.mode != .none, let delta = population.budgetDelta else {
            throw CoordinationError(
                .unprocessable,
                "no_privacy",
                "the run has no privacy mode, or its population no budget"
            )
        }
        let account = ledger.account(population.id)
        do {
            let earlier = try account.releases()
            let start = account.start(with: PrivacyCharge(of: specification, parameterCount: parameterCount ?? 0))
            return try LossAllowance.limited { () throws(PrivacyError) in
                try PrivacyProjection(
                    of: specification,
                    parameterCount: parameterCount,
                    delta: delta,
                    budget: population.budgetEpsilon,
                    earlier: earlier,
                    earlierCharges: account.charges,
                    isAdaptive: account.isAdaptive || !account.planOrder.isEmpty,
                    start: start
                )
            }
        } catch {
            throw Self.refusal(of: error, "the cost cannot be computed")
        }
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
