import Coordination
import DifferentialPrivacy
import Foundation
import HelperService
import SecureAggregation
import TestSupport
import Testing
import WireFormat

/// A server that chooses noise, K and purpose after it has seen earlier sums.
@Suite(.timeLimit(.minutes(10)))
struct AdaptiveServerTests {
    private enum Kind: CaseIterable { case gaussian, discreteGaussian, laplace }

    private func request(_ fixture: HelperFixture, _ kind: Kind, round: Int, _ z: Double) -> HelperSessionRequest {
        var request = fixture.request(round: round, coordinates: 5, noiseMultiplier: z)
        switch kind {
        case .gaussian: break
        case .discreteGaussian:
            request.noiseDeviation = 1000
            request.norm = Int(1000 / z)
            request.coordinateBound = min(request.norm, 100)
        case .laplace:
            (request.noise, request.measure, request.bits) = (.laplace, .l1, 64)
            request.noiseDeviation = SessionNoise.laplaceDeviation
            request.norm = Int(0x1p32 / z)
        }
        return request
    }

    private func fixture() async throws -> HelperFixture {
        try await HelperFixture(
            epsilon: 5000,
            policy: HelperPolicy(minimum: 2, maximum: 100, leastNoise: 0.1, openSessions: 1000)
        )
    }

    /// Whatever comes first and whatever second in one run, the accountant holds for releases that are chosen adaptively.
    @Test func everyTwoChargesOfOneRunAreJudgedByAFilter() async throws {
        for first in Kind.allCases {
            for second in Kind.allCases {
                for release in [HelperPurpose.training, .histogram] {
                    let fixture = try await fixture()
                    _ = try await fixture.grant(request(fixture, first, round: 1, 2))
                    var next = request(fixture, second, round: 2, 2.5)
                    next.purpose = release
                    _ = try await fixture.grant(next)
                    let document = try await fixture.helper.ledgerAudit("keyboards")
                    let kind = try #require(AccountantKind(rawValue: document.budget.accountant))
                    #expect(Self.filters.contains(kind), "\(first) then \(second): \(kind)")
                    let reserved = try #require(try await fixture.domain().budget?.reservedEpsilon)
                    #expect(reserved > 0 && reserved.isFinite)
                    let audit = try LedgerAudit(try WireCoding.encode(document), delta: nil, heads: [])
                    #expect(audit.problems.isEmpty, "\(audit.problems)")
                }
            }
        }
    }

    /// Accountants whose bound holds for events that are chosen adaptively.
    private static let filters: Set<AccountantKind> = {
        var kinds: Set<AccountantKind> = []
        if GaussianCompositionAccountant.isFilter { kinds.insert(.gaussian) }
        if PrivacyFilter.isFilter { kinds.insert(.filter) }
        if ZeroConcentratedAccountant.isFilter { kinds.insert(.zcdp) }
        return kinds
    }()

    /// However many different K there are, a request makes no more cells of loss distributions than a question may.
    @Test func manyDifferentChargesCostABoundedAmountOfArithmetic() async throws {
        for kind in Kind.allCases {
            let fixture = try await fixture()
            for round in 1...60 {
                let request = request(fixture, kind, round: round, 3 + Double(round) * 0.05)
                let helper = fixture.helper
                let granted = try await LossAllowance.measuredInTask {
                    try await helper.createSession(request, by: HelperFixture.server).session
                }
                #expect(granted.cells <= LossAllowance.standard, "\(kind) \(round)")
                guard round.isMultiple(of: 20) else { continue }
                for _ in 0..<2 {
                    let seen = try await LossAllowance.measuredInTask {
                        _ = try await helper.status()
                        _ = await helper.metricsExposition()
                        return try await helper.domainView("keyboards")
                    }
                    #expect(seen.cells <= 2 * LossAllowance.standard)
                    #expect(try #require(seen.value.budget?.reservedEpsilon).isFinite)
                }
                let bytes = try list(try devices(2, of: granted.value))
                let summed = try await LossAllowance.measuredInTask {
                    try await helper.makeSum(granted.value.session, of: HelperFixture.server, list: bytes)
                }
                #expect(summed.cells <= 2 * LossAllowance.standard)
            }
        }
    }
}
