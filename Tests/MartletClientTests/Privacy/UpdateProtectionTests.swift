import Crypto
import Foundation
import StrictJSON
import Tensors
import TestSupport
import Testing
import WireFormat

@testable import DifferentialPrivacy
@testable import MartletClient

/// What a device does to its update before it leaves, by the run's terms.
struct UpdateProtectionTests {
    private static let layout = ParameterLayout([.init(name: "a", shape: [2]), .init(name: "b", shape: [2])])

    private static func privacy(_ text: String) throws -> RunSpecification.Privacy {
        let document = """
            {"population": "p", "rounds": 1, "model": {"architecture": "external"},
             "cohort": {"goal": 1, "min_separation_rounds": 1}, "privacy": \(text)}
            """
        return try RunSpecification.read(JSONValue.parse(Array(document.utf8))).privacy
    }

    private static func clipped(_ policy: String, _ values: [Float]) throws -> (values: [Float], isWithin: Bool) {
        let mechanism = policy == "l1" ? "laplace" : "gaussian"
        let text = """
            {"mode": "central", "noise_multiplier": 1, "mechanism": "\(mechanism)",
             "clipping": {"policy": "\(policy)", "norm": 2}}
            """
        var update = ParameterVector(layout: layout, values: values)
        let protection = try #require(try UpdateProtection(privacy(text)))
        let isWithin = try protection.clip(&update)
        return (update.values, isWithin)
    }

    @Test func clippingFollowsThePolicy() throws {
        #expect(try Self.clipped("flat", [3, 0, 0, 4]).values.map { ($0 * 100).rounded() } == [120, 0, 0, 160])
        // √2 for each of two layers.
        #expect(try Self.clipped("per_layer", [3, 0, 0, 1]).values.map { ($0 * 100).rounded() } == [141, 0, 0, 100])
        #expect(try Self.clipped("l1", [3, 0, 0, -1]).values == [1.5, 0, 0, -0.5])
        #expect(try Self.clipped("adaptive", [3, 0, 0, 4]).isWithin == false)
        #expect(try Self.clipped("adaptive", [1, 0, 0, 1]).isWithin)
        #expect(throws: PrivacyError.notFinite(index: 3)) { try Self.clipped("per_layer", [3, 0, 0, .nan]) }
        var unknown = try Self.privacy(#"{"mode": "central", "noise_multiplier": 1}"#)
        unknown.mechanism = "soothing"
        #expect(throws: ClientError.self) { try UpdateProtection(unknown) }
        unknown.mechanism = "gaussian"
        unknown.clipping.policy = "gentle"
        #expect(throws: ClientError.self) { try UpdateProtection(unknown) }
    }

    @Test(arguments: ["gaussian", "laplace", "discrete_gaussian"])
    func localNoiseIsForAnyTwoReportsAndFreshEachTime(_ mechanism: String) throws {
        let privacy = try Self.privacy(
            #"{"mode": "local", "noise_multiplier": 3, "mechanism": "\#(mechanism)", "clipping": {"norm": 0.5}}"#
        )
        let protection = try #require(try UpdateProtection(privacy))
        // 400 coordinates fit the coarse grid; the deviation is measured to 3.5 %, and eight of that are allowed.
        let layout = ParameterLayout([.init(name: "w", shape: [400])])
        var releases: [[Float]] = []
        for _ in 0..<2 {
            var update = ParameterVector(zeros: layout)
            try protection.addLocalNoise(&update)
            releases.append(update.values)
        }
        let deviation = (releases[0].reduce(0) { $0 + Double($1) * Double($1) } / 400).squareRoot()
        let expected = mechanism == "laplace" ? 3 * 2.0.squareRoot() : 3
        #expect(abs(deviation / expected - 1) < 0.3)
        #expect(releases[0] != releases[1])
    }
}

/// The device's policy and ledger.
struct ClientPolicyTests {
    private static func assignment(
        _ privacy: String,
        round: Int = 1,
        minimum: Int? = 10,
        kind: String = "train"
    ) throws -> AssignmentBody {
        let document = """
            {"population": "p", "rounds": 1, "model": {"architecture": "external"},
             "cohort": {"goal": 10, "min_separation_rounds": 4}, "privacy": \(privacy)}
            """
        let specification = try RunSpecification.read(JSONValue.parse(Array(document.utf8)))
        var body = AssignmentBody(
            id: "asg",
            run: "run",
            round: round,
            attempt: 1,
            state: "assigned",
            model: .init(version: 0, url: "/model", sha256: "", bytes: 0),
            architecture: specification.model,
            training: specification.training,
            privacy: specification.privacy,
            maxParticipations: 1,
            tensors: ParameterLayout([.init(name: "w", shape: [4])]),
            updateUrl: "/update",
            seed: "5",
            deadline: "",
            deadlineInS: 60,
            kind: kind
        )
        body.cohortMinimum = minimum
        return body
    }

    private static func text(_ mode: String, _ mechanism: String = "gaussian") -> String {
        #"{"mode": "\#(mode)", "noise_multiplier": 2, "mechanism": "\#(mechanism)"}"#
    }

    /// How often a policy lets the same terms pass.
    private static func passes(_ privacy: String, _ policy: ClientPrivacyPolicy) throws -> Int {
        var ledger = ClientLedger()
        for count in 0..<50 {
            let body = try assignment(privacy, round: count + 1)
            if ledger.refusal(of: body, policy: policy) != nil { return count }
            ledger.events.append(.init(body))
        }
        return 50
    }

    @Test func everyMechanismIsCountedByWhatItCosts() throws {
        func exact(_ z: Double) -> Double { GaussianAccountant.epsilon(delta: 1e-5, noiseMultiplier: z) }
        for mode in ["local", "central"] {
            let three = ClientPrivacyPolicy(maxEpsilon: exact(2 / 3.0.squareRoot()) + 1e-3)
            #expect(try Self.passes(Self.text(mode), three) == 3)
            // Each costs 1/2 by itself; Rényi composition of a few says more than their sum, and never less than one.
            let laplace = try Self.passes(Self.text(mode, "laplace"), .init(maxEpsilon: 1.5))
            #expect((1...3).contains(laplace))
            #expect(try Self.passes(Self.text(mode, "discrete_gaussian"), three) == 2)
        }
        // One column of c = 1, 1/2, 3/8, 5/16: 1.488 times the squared sensitivity.
        let column = BandedReleases.coefficients(band: 4).reduce(0) { $0 + $1 * $1 }
        let two = ClientPrivacyPolicy(maxEpsilon: exact(2 / (2 * column).squareRoot()) + 1e-3)
        #expect(try Self.passes(Self.text("central", "banded_matrix"), two) == 2)
        #expect(try Self.passes(Self.text("local"), .init(maxParticipations: 4)) == 4)
    }

    /// ε is the device's, over all runs and populations; participations are counted in each run.
    @Test func whatOtherRunsHaveTakenCounts() throws {
        func exact(_ z: Double) -> Double { GaussianAccountant.epsilon(delta: 1e-5, noiseMultiplier: z) }
        let two = ClientPrivacyPolicy(maxParticipations: 1, maxEpsilon: exact(2 / 2.0.squareRoot()) + 1e-3)
        for mode in ["local", "central"] {
            var ledger = ClientLedger()
            for (run, isAccepted) in [("a", true), ("a", false), ("b", true), ("c", false)] {
                var body = try Self.assignment(Self.text(mode))
                body.run = run
                let refusal = ledger.refusal(of: body, policy: two)
                #expect((refusal == nil) == isAccepted, "\(run): \(refusal ?? "accepted")")
                #expect(run != "c" || refusal?.contains("epsilon would reach") == true)
                if refusal == nil { ledger.events.append(.init(body)) }
            }
            // The other mode has a total of its own.
            var other = try Self.assignment(Self.text(mode == "local" ? "central" : "local"))
            other.run = "c"
            #expect(ledger.refusal(of: other, policy: two) == nil)
        }
    }

    /// Terms follow what was published: only filters may judge, and mixing mechanisms later has the smaller share of δ.
    @Test func aDeviceJudgesMixturesByAFilter() throws {
        let laplace = CappedRelease(.laplace(scale: 8))
        let gaussian = CappedRelease(.gaussian(noiseMultiplier: 8), coordinateCount: 4)
        for (order, share) in [(["laplace", "gaussian"], 1.0), (["gaussian", "laplace"], EnforcingRule.mixedShare)] {
            let expected = try BudgetArithmetic.epsilon(
                of: order[0] == "laplace" ? [laplace, gaussian] : [gaussian, laplace],
                delta: 1e-5 * share,
                accountant: .filter
            )
            for (limit, isAccepted) in [(expected * 1.001, true), (expected * 0.999, false)] {
                var ledger = ClientLedger()
                for (index, mechanism) in order.enumerated() {
                    let text = #"{"mode": "central", "noise_multiplier": 8, "mechanism": "\#(mechanism)"}"#
                    let body = try Self.assignment(text, round: index + 1)
                    let refusal = ledger.refusal(of: body, policy: .init(maxEpsilon: limit))
                    #expect((refusal == nil) == (index == 0 || isAccepted), "\(order) \(limit): \(refusal ?? "")")
                    ledger.events.append(.init(body))
                }
            }
        }
    }

    @Test func cohortsModesAndMeasurementsAreJudged() throws {
        let ledger = ClientLedger()
        let crowd = ClientPrivacyPolicy(minimumCohort: 20)
        func reason(_ body: AssignmentBody, _ policy: ClientPrivacyPolicy) -> String {
            ledger.refusal(of: body, policy: policy) ?? "accepted"
        }
        let central = Self.text("central")
        #expect(reason(try Self.assignment(central, minimum: 20), crowd) == "accepted")
        #expect(reason(try Self.assignment(central, minimum: 19), crowd).contains("19 clients"))
        #expect(reason(try Self.assignment(central, minimum: nil), crowd).contains("does not state"))
        #expect(reason(try Self.assignment(central), .init(acceptedModes: ["local"])).contains("not accepted"))
        #expect(reason(try Self.assignment(central, kind: "evaluate"), .init()).contains("does not protect"))
        #expect(reason(try Self.assignment("{}", kind: "evaluate"), .init()) == "accepted")
        // What is noised before it is published is measured, and counted like a round.
        var measured = try Self.assignment(central, kind: "evaluate")
        measured.release = .init(metrics: ["loss"], lossBound: 10)
        #expect(reason(measured, .init()) == "accepted")
        #expect(reason(measured, .init(maxEpsilon: 0.01)).contains("epsilon would reach"))
        measured.privacy.mode = "local"
        #expect(reason(measured, .init()).contains("does not protect"))
        var strange = try Self.assignment(central)
        strange.privacy.mechanism = "oracle"
        #expect(reason(strange, .init(maxEpsilon: 100)).contains("cannot be computed"))
    }

    @Test func aPolicyFileIsReadStrictly() throws {
        func read(_ text: String) throws -> ClientPrivacyPolicy {
            try ClientPrivacyPolicy.read(JSONValue.parse(Array(text.utf8)))
        }
        #expect(try read("{}") == ClientPrivacyPolicy())
        let policy = try read(
            #"{"accepted_modes": ["local"], "max_participations": 3, "max_epsilon": 2, "delta": 1e-6, "minimum_cohort": 50}"#
        )
        #expect(
            policy
                == ClientPrivacyPolicy(
                    acceptedModes: ["local"],
                    maxParticipations: 3,
                    maxEpsilon: 2,
                    delta: 1e-6,
                    minimumCohort: 50
                )
        )
        for bad in [
            #"{"accepted_modes": ["all"]}"#, #"{"max_epsilon": -1}"#, #"{"max_epsilon": "much"}"#, #"{"delta": 0}"#,
            #"{"max_epsilom": 1}"#,
        ] {
            #expect(throws: DocumentError.self) { try read(bad) }
        }
    }
}
