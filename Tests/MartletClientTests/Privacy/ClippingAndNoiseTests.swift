import Crypto
import Foundation
import StrictJSON
import Synchronization
import Tensors
import TestSupport
import Testing
import WireFormat

@testable import DifferentialPrivacy
@testable import MartletClient

/// What a device does to its update before it leaves, by the run's terms.
struct ClippingAndNoiseTests {
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
        let protection = try #require(try ClippingAndNoise(privacy(text)))
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
    }

    @Test(arguments: ["gaussian", "laplace", "discrete_gaussian"])
    func localNoiseIsForAnyTwoReportsAndFreshEachTime(_ mechanism: String) throws {
        let privacy = try Self.privacy(
            #"{"mode": "local", "noise_multiplier": 3, "mechanism": "\#(mechanism)", "clipping": {"norm": 0.5}}"#
        )
        let protection = try #require(try ClippingAndNoise(privacy))
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
        kind: WorkKind = .train
    ) throws -> Assignment {
        let document = """
            {"population": "p", "rounds": 1, "model": {"architecture": "external"},
             "cohort": {"goal": 10, "min_separation_rounds": 4}, "privacy": \(privacy)}
            """
        let specification = try RunSpecification.read(JSONValue.parse(Array(document.utf8)))
        var body = AssignmentBody(
            id: "asg_\(ids.wrappingAdd(1, ordering: .relaxed).newValue)",
            run: "run",
            round: round,
            attempt: 1,
            state: .assigned,
            model: .init(version: 0, url: "/model", sha256: String(repeating: "0", count: 64), bytes: 80),
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
        return try Assignment.read(.parse(Array(WireCoding.encode(body))), modelByteLimit: 1 << 20)
    }

    private static func text(_ mode: String, _ mechanism: String = "gaussian") -> String {
        #"{"mode": "\#(mode)", "noise_multiplier": 2, "mechanism": "\#(mechanism)"}"#
    }

    /// Each assignment has an id of its own.
    private static let ids = Atomic<Int>(0)

    /// A server that hands out an id again, after the device has forgotten its ending, gets no second report for one event.
    @Test func anIdThatComesAgainIsNotFree() throws {
        let body = try Self.assignment(Self.text("local"))
        let policy = ClientPrivacyPolicy(maxEpsilon: 100)
        var ledger = ClientLedger()
        #expect(ledger.record(.init(body)) && !ledger.record(.init(body)))
        // After a kill, before anything was sent.
        #expect(ledger.refusal(of: body, policy: policy) == nil)
        var other = body
        other.privacy.noiseMultiplier = 0.5
        #expect(ledger.refusal(of: other, policy: policy)?.contains("other terms") == true)
        #expect(ledger.finish(body.id.text) && !ledger.finish(body.id.text))
        #expect(ledger.refusal(of: body, policy: policy)?.contains("made already") == true)
    }

    /// What costs nothing has a bound, however many runs a server names; what a device has taken part in still counts.
    @Test func eventsWithoutPrivacyAreCountedAndNotKept() throws {
        var ledger = ClientLedger()
        let paid = try Self.assignment(Self.text("local"))
        var isNew = ledger.record(.init(paid))
        for round in 1...100 {
            isNew = ledger.record(.init(try Self.assignment("{}", round: round))) && isNew
        }
        #expect(isNew)
        #expect(ledger.events.count <= 65 && ledger.events.first?.assignment == paid.id.text)
        let one = try Self.assignment("{}", round: 101)
        let refusal = ledger.refusal(of: one, policy: .init(maxParticipations: 100))
        #expect(refusal?.contains("taken part 101 times") == true, "\(refusal ?? "")")
        #expect(ledger.refusal(of: one, policy: .init(maxParticipations: 102)) == nil)
        // Written and read again it is the same.
        #expect(try JSONDecoder().decode(ClientLedger.self, from: JSONEncoder().encode(ledger)) == ledger)
        var event = ClientLedger.Event(one)
        for number in 0..<2000 {
            (event.run, event.assignment) = ("run_\(number)", "asg_\(number)")
            _ = ledger.record(event)
        }
        #expect(try JSONEncoder().encode(ledger).count < 40_000)
        #expect(ledger.events.first?.assignment == paid.id.text)
    }

    /// How often a policy lets the same terms pass.
    private static func passes(_ privacy: String, _ policy: ClientPrivacyPolicy, spacing: Int = 1) throws -> Int {
        var ledger = ClientLedger()
        for count in 0..<50 {
            let body = try assignment(privacy, round: spacing * count + 1)
            if ledger.refusal(of: body, policy: policy) != nil { return count }
            _ = ledger.record(.init(body))
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
        let banded = Self.text("central", "banded_matrix")
        #expect(try Self.passes(banded, two, spacing: 4) == 2)
        // Rounds that are closer than the band meet, whatever the server says of their separation: the columns' sum is what counts.
        #expect(try Self.passes(banded, two, spacing: 3) == 1)
        let coefficients = BandedReleases.coefficients(band: 4) + [0]
        let sum = zip(coefficients, [0] + coefficients).reduce(0) { $0 + ($1.0 + $1.1) * ($1.0 + $1.1) }
        let met = exact(2 / sum.squareRoot())
        #expect(try Self.passes(banded, .init(maxEpsilon: met + 1e-3)) == 2)
        #expect(try Self.passes(banded, .init(maxEpsilon: met - 1e-3)) == 1)
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
                body.run = RunID(known: run)
                let refusal = ledger.refusal(of: body, policy: two)
                #expect((refusal == nil) == isAccepted, "\(run): \(refusal ?? "accepted")")
                #expect(run != "c" || refusal?.contains("epsilon would reach") == true)
                if refusal == nil { _ = ledger.record(.init(body)) }
            }
            // The other mode has a total of its own.
            var other = try Self.assignment(Self.text(mode == "local" ? "central" : "local"))
            other.run = RunID(known: "c")
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
                    _ = ledger.record(.init(body))
                }
            }
        }
    }

    @Test func cohortsModesAndMeasurementsAreJudged() throws {
        let ledger = ClientLedger()
        let crowd = ClientPrivacyPolicy(minimumCohort: 20)
        func reason(_ body: Assignment, _ policy: ClientPrivacyPolicy) -> String {
            ledger.refusal(of: body, policy: policy) ?? "accepted"
        }
        let central = Self.text("central")
        #expect(reason(try Self.assignment(central, minimum: 20), crowd) == "accepted")
        #expect(reason(try Self.assignment(central, minimum: 19), crowd).contains("19 clients"))
        #expect(reason(try Self.assignment(central, minimum: nil), crowd).contains("does not state"))
        #expect(reason(try Self.assignment(central), .init(acceptedModes: ["local"])).contains("not accepted"))
        #expect(reason(try Self.assignment(central, kind: .evaluate), .init()).contains("does not protect"))
        #expect(reason(try Self.assignment("{}", kind: .evaluate), .init()) == "accepted")
        // What is noised before it is published is measured, and counted like a round.
        var measured = try Self.assignment(central, kind: .evaluate)
        measured.release = .init(metrics: ["loss"], lossBound: 10)
        #expect(reason(measured, .init()) == "accepted")
        #expect(reason(measured, .init(maxEpsilon: 0.01)).contains("epsilon would reach"))
        measured.privacy.mode = .local
        #expect(reason(measured, .init()).contains("does not protect"))
        // What a server that was changed might ask for in the mode that protects from it.
        var bit = try Self.assignment(Self.text("local"))
        bit.privacy.clipping.policy = .adaptive(.init(target: 0.5, learningRate: 0.2, countNoise: nil))
        #expect(reason(bit, .init(maxEpsilon: 100)).contains("adaptive"))
        var silent = try Self.assignment(Self.text("local"))
        silent.privacy.noiseMultiplier = 0.05
        #expect(reason(silent, .init()).contains("protects nothing"))
        var vote = try Self.assignment(central)
        vote.privacy.mechanism = .sampleAndThreshold
        #expect(reason(vote, .init()).contains("protects votes"))
        // What another version of this program has written down, and this one does not know.
        let text =
            #"{"events": [{"run": "r", "round": 1, "mode": "central", "noiseMultiplier": 2, "mechanism": "oracle"}]}"#
        let strange = try WireCoding.decode(ClientLedger.self, from: Data(text.utf8))
        let refusal = strange.refusal(of: try Self.assignment(central), policy: .init(maxEpsilon: 100))
        #expect(refusal?.contains("cannot be computed") == true)
        #expect(try WireCoding.decode(ClientLedger.self, from: WireCoding.encode(strange)) == strange)
    }

    @Test func aPolicyFileIsReadStrictly() throws {
        func read(_ text: String) throws -> ClientPrivacyPolicy {
            try ClientPrivacyPolicy.read(JSONValue.parse(Array(text.utf8)))
        }
        #expect(try read("{}") == ClientPrivacyPolicy())
        let policy = try read(
            #"""
            {"accepted_modes": ["local"], "max_participations": 3, "max_epsilon": 2, "delta": 1e-6, "minimum_cohort": 50,
             "may_register_again": false}
            """#
        )
        #expect(
            policy
                == ClientPrivacyPolicy(
                    acceptedModes: ["local"],
                    maxParticipations: 3,
                    maxEpsilon: 2,
                    delta: 1e-6,
                    minimumCohort: 50,
                    mayRegisterAgain: false
                )
        )
        // What an earlier version wrote.
        let old = #"{"acceptedModes": [], "maxParticipations": 1, "maxEpsilon": 2, "delta": 1e-6, "minimumCohort": 3}"#
        #expect(try JSONDecoder().decode(ClientPrivacyPolicy.self, from: Data(old.utf8)).mayRegisterAgain)
        #expect(try JSONDecoder().decode(ClientPrivacyPolicy.self, from: JSONEncoder().encode(policy)) == policy)
        for bad in [
            #"{"accepted_modes": ["all"]}"#, #"{"max_epsilon": -1}"#, #"{"max_epsilon": "much"}"#, #"{"delta": 0}"#,
            #"{"max_epsilom": 1}"#, #"{"may_register_again": "no"}"#,
        ] {
            #expect(throws: DocumentError.self) { try read(bad) }
        }
    }
}
