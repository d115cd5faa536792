import DifferentialPrivacy
import Tensors
import WireFormat

/// The device's own record of what its reports have cost, kept whatever the server keeps.
///
/// It is written before an update can leave the device, so it may count one that never left, and never misses one.
struct ClientLedger: Codable, Equatable, Sendable {
    struct Event: Codable, Equatable, Sendable {
        var run: String
        var round: Int
        var mode: String
        var noiseMultiplier: Double
        /// `gaussian` where absent.
        var mechanism: String?
        /// Coefficients of correlated noise.
        var band: Int?
        var parameterCount: Int?

        init(_ assignment: AssignmentBody) {
            run = assignment.run
            round = assignment.round
            mode = assignment.privacy.mode
            noiseMultiplier = assignment.privacy.noiseMultiplier
            mechanism = assignment.privacy.mechanism
            band = assignment.privacy.band
            parameterCount =
                assignment.release.map { $0.metrics.count + 1 }
                ?? (assignment.updateTensors ?? assignment.tensors).parameterCount
        }

        /// What it costs one client that takes the server's word for nothing but the noise: no sampling, no cap.
        fileprivate func release() throws(PrivacyError) -> CappedRelease {
            switch mechanism ?? "gaussian" {
            case "gaussian": return CappedRelease(.gaussian(noiseMultiplier: noiseMultiplier), coordinateCount: count)
            case "laplace": return CappedRelease(.laplace(scale: noiseMultiplier))
            case "discrete_gaussian": return CappedRelease(.discreteGaussian(noiseMultiplier: noiseMultiplier))
            case "banded_matrix":
                // One column of the matrix; participations further apart than the band do not meet.
                let square = BandedReleases.coefficients(band: band ?? 64).reduce(0) { $0 + $1 * $1 }
                let effective = noiseMultiplier / square.squareRoot()
                return CappedRelease(.gaussian(noiseMultiplier: effective), coordinateCount: count)
            case let other: throw .unsupportedEvent(event: other, accountant: "client")
            }
        }

        private var count: Int { parameterCount ?? 0 }
    }

    var events: [Event] = []

    /// Why the policy does not allow one more event, or `nil` when it does.
    func refusal(of assignment: AssignmentBody, policy: ClientPrivacyPolicy) -> String? {
        let event = Event(assignment)
        guard policy.acceptedModes.contains(event.mode) else {
            return "mode \(event.mode) is not accepted on this device"
        }
        if assignment.kind == "evaluate" && event.mode != "none"
            && (event.mode != "central" || assignment.release == nil || event.noiseMultiplier < 0.1)
        {
            return "sums over private data are asked for that mode \(event.mode) does not protect"
        }
        let participations = events.filter { $0.run == event.run }.count
        guard participations < policy.maxParticipations else {
            return "this device has taken part \(participations) times already"
        }
        if policy.minimumCohort > 0 {
            guard let minimum = assignment.cohortMinimum, minimum >= policy.minimumCohort else {
                let stated = assignment.cohortMinimum.map { "\($0) clients" } ?? "a number that it does not state"
                return "the round publishes what \(stated) sent, this device wants \(policy.minimumCohort)"
            }
        }
        // What is no number is no permission.
        guard event.mode != "none", !(policy.maxEpsilon >= .greatestFiniteMagnitude) else { return nil }
        do {
            let total = try epsilon(of: (events + [event]).filter { $0.mode == event.mode }, delta: policy.delta)
            return total <= policy.maxEpsilon ? nil : "epsilon would reach \(total) of \(policy.maxEpsilon)"
        } catch {
            return "what it costs cannot be computed: \(error)"
        }
    }

    private func epsilon(of events: [Event], delta: Double) throws(PrivacyError) -> Double {
        var releases: [CappedRelease] = []
        for event in events { releases.append(try event.release()) }
        // Terms follow what was published before: only filters may judge.
        let isFiltered = releases.first.map { BudgetArithmetic.startsFiltered(with: $0.event, isAdaptive: true) }
        let rule = BudgetArithmetic.enforcingRule(of: releases, isAdaptive: true, isFiltered: isFiltered ?? false)
        return try BudgetArithmetic.epsilon(of: releases, delta: delta, rule: rule)
    }
}
