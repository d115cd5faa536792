import DifferentialPrivacy
import WireFormat

/// What the cost of a plan is computed from: what its population has been charged with, as that was at one moment.
///
/// The arithmetic takes up to a second. It runs beside the coordinator, which looks again at what it rested on when it uses the answer.
struct PlanBasis: Sendable {
    let population: PopulationRecord
    private let account: PopulationAccount
    /// Where the population's ledger stood.
    private let head: PopulationLedgerHead?

    init(_ population: PopulationRecord, _ account: PopulationAccount, head: PopulationLedgerHead?) {
        (self.population, self.account, self.head) = (population, account, head)
    }

    /// Whether the population's ledger and budget stand where they did.
    func isLike(_ other: Self) -> Bool { head == other.head && population == other.population }

    /// Whether the other basis gives a specification the same noise: of charges, only the share of δ that they leave for votes counts.
    func calibratesLike(_ other: Self, _ specification: RunSpecification) -> Bool {
        guard population.budgetDelta == other.population.budgetDelta else { return false }
        guard specification.privacy.mechanism == .gaussianSparseHistogram(threshold: nil) else { return true }
        return failureAllowance(of: specification) == other.failureAllowance(of: specification)
    }

    private func failureAllowance(of specification: RunSpecification) -> Double? {
        population.budgetDelta.map {
            account.failureAllowance(with: PrivacyCharge(of: specification, parameterCount: 1), of: "", delta: $0)
        }
    }

    /// The specification with the noise that meets its target.
    ///
    /// - Parameters:
    ///   - specification: A run that is about to be made.
    ///   - parameterCount: Of its model, where that is known.
    /// - Returns: The specification as it is stored.
    /// - Throws: ``CoordinationError`` with code `privacy_invalid`, or `privacy_too_costly` where its cost takes too much arithmetic.
    func calibrating(
        _ specification: RunSpecification,
        parameterCount: Int?
    ) throws(CoordinationError) -> RunSpecification {
        guard let delta = population.budgetDelta else { return specification }
        let allowance = failureAllowance(of: specification)
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

    /// What a specification would cost its population, with everything charged before.
    ///
    /// - Throws: ``CoordinationError``: no privacy, no budget, or parameters that no accountant takes.
    func projection(
        of specification: RunSpecification,
        parameterCount: Int?
    ) throws(CoordinationError) -> PrivacyProjection {
        guard specification.privacy.mode != .none, let delta = population.budgetDelta else {
            throw CoordinationError(
                .unprocessable,
                "no_privacy",
                "the run has no privacy mode, or its population no budget"
            )
        }
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
}
