import StrictJSON
import Testing
import WireFormat

/// Which privacy terms a run may state, and what is said of the others.
struct PrivacyTermsTests {
    private static func read(_ privacy: String, cohort: String = "", extra: String = "") throws -> RunSpecification {
        let text = """
            {"population": "p", "rounds": 9, "model": {"architecture": "external"}, "cohort": {"goal": 4\(cohort)},
             "privacy": {\(privacy)}\(extra)}
            """
        return try RunSpecification.read(JSONValue.parse(Array(text.utf8)))
    }

    private static let central = #""mode": "central", "noise_multiplier": 1"#

    @Test func defaultsAreFlatGaussianWithoutAmplification() throws {
        let plain = try Self.read(Self.central).privacy
        #expect(plain.mechanism == .gaussian && plain.clipping.policy == .flat && !plain.isAmplified)
        let laplace = try Self.read(Self.central + #", "mechanism": "laplace""#).privacy
        #expect(laplace.clipping.policy == .l1)
        let adaptive = try Self.read(Self.central + #", "clipping": {"policy": "adaptive"}"#).privacy
        #expect(adaptive.clipping.policy == .adaptive(.init(target: 0.5, learningRate: 0.2, countNoise: nil)))
        let banded = try Self.read(
            Self.central + #", "mechanism": "banded_matrix""#,
            cohort: #", "min_separation_rounds": 5"#
        )
        #expect(banded.privacy.band == 5 && banded.noiseBand == 5)
        let poisson = try Self.read(
            Self.central + #", "amplification": "poisson""#,
            cohort: #", "policy": "poisson", "sampling_rate": 0.1"#
        )
        #expect(poisson.cohort.minimum == 0 && poisson.cohort.maxParticipations == 0)
        // What is stored reads back the same.
        for specification in [banded, poisson] {
            let again = try RunSpecification.read(JSONValue.parse(Array(WireCoding.encode(specification))))
            #expect(again == specification)
        }
    }

    @Test(arguments: [
        (#""mode": "central", "noise_multiplier": 0.01"#, "", "", "/privacy/noise_multiplier"),
        (#""mode": "central""#, "", "", "/privacy/noise_multiplier"),
        (#""mode": "central", "noise_multiplier": 1, "target": {"epsilon": 2}"#, "", "", "/privacy/noise_multiplier"),
        (#""mode": "central", "target": {"epsilon": 0}"#, "", "", "/privacy/target/epsilon"),
        (#""target": {"epsilon": 1}"#, "", "", "/privacy/target"),
        (#""mode": "central", "target": {"epsilon": 2, "delta": 9e-13}"#, "", "", "/privacy/target/delta"),
        (#""mode": "central", "target": {"epsilon": 2, "delta": 0}"#, "", "", "/privacy/target/delta"),
        (#""mode": "central", "target": {"epsilon": 2, "delta": 0.2}"#, "", "", "/privacy/target/delta"),
        (central + #", "mechanism": "laplace", "clipping": {"policy": "flat"}"#, "", "", "/privacy/clipping/policy"),
        (central + #", "clipping": {"policy": "l1"}"#, "", "", "/privacy/clipping/policy"),
        (central + #", "clipping": {"count_noise": 1}"#, "", "", "/privacy/clipping/count_noise"),
        (#""mode": "local", "noise_multiplier": 1, "clipping": {"policy": "adaptive"}"#, "", "", "/privacy/clipping"),
        (
            central + #", "mechanism": "discrete_gaussian", "clipping": {"policy": "adaptive"}"#, "", "",
            "/privacy/clipping"
        ),
        (central + #", "noise_scale": 9"#, "", "", "/privacy/noise_scale"),
        (central + #", "band": 9"#, "", "", "/privacy/band"),
        (central + #", "mechanism": "banded_matrix""#, "", "", "/privacy"),
        (
            central + #", "mechanism": "banded_matrix", "band": 6"#, #", "min_separation_rounds": 5"#, "", "/privacy"
        ),
        (#""mode": "local", "noise_multiplier": 1, "mechanism": "banded_matrix""#, "", "", "/privacy/mechanism"),
        (central + #", "amplification": "poisson""#, "", "", "/privacy"),
        (
            #""mode": "local", "noise_multiplier": 1, "amplification": "poisson""#,
            #", "policy": "poisson", "sampling_rate": 0.1"#, "", "/privacy/amplification"
        ),
        (
            central + #", "amplification": "poisson""#,
            #", "policy": "poisson", "sampling_rate": 0.1, "max_participations": 3"#, "", "/cohort/max_participations"
        ),
        (
            central + #", "amplification": "poisson""#, #", "policy": "poisson", "sampling_rate": 0.1, "minimum": 2"#,
            "",
            "/cohort/minimum"
        ),
        (
            central + #", "amplification": "poisson", "mechanism": "laplace""#,
            #", "policy": "poisson", "sampling_rate": 0.1"#, "", "/privacy/amplification"
        ),
        (central, #", "minimum": 0"#, "", "/cohort/minimum"),
        (central, #", "max_participations": 0"#, "", "/cohort/max_participations"),
        (central, #", "min_examples": 5"#, "", "/cohort"),
        (
            central, #", "min_examples": 5"#, #", "aggregation": {"weighting": "examples", "example_cap": 9}"#,
            "/cohort"
        ),
        (central, #", "requirements": "cpu_count > 1 and not num_examples >= 50""#, "", "/cohort/requirements"),
        (central, #", "tiers": 2"#, "", "/cohort"),
        (central, #", "target_seconds": 30"#, "", "/cohort"),
        (central, "", #", "aggregation": {"weighting": "examples"}"#, "/aggregation/example_cap"),
        (central, "", #", "evaluation": {"every": 1}"#, "/evaluation/noise_multiplier"),
        (
            central, "", #", "evaluation": {"every": 1, "noise_multiplier": 1, "metrics": ["nll"]}"#,
            "/evaluation/metrics"
        ),
        (central, "", #", "evaluation": {"every": 1, "noise_multiplier": 1, "metrics": []}"#, "/evaluation/metrics"),
        (
            central, "",
            #", "evaluation": {"every": 1, "noise_multiplier": 1, "metrics": ["loss", "loss"]}"#, "/evaluation/metrics"
        ),
        (
            central, "", #", "evaluation": {"every": 1, "noise_multiplier": 1, "max_participations": 0}"#,
            "/evaluation/max_participations"
        ),
        (
            central, "",
            #", "evaluation": {"every": 1, "noise_multiplier": 1, "metrics": ["top1"]}, "stop": {"metric": "loss", "patience": 1}"#,
            "/stop"
        ),
        (#""mode": "local", "noise_multiplier": 1"#, "", #", "evaluation": {"every": 1}"#, "/evaluation"),
        (
            #""mode": "none""#, "", #", "evaluation": {"every": 1, "noise_multiplier": 1}"#,
            "/evaluation/noise_multiplier"
        ),
        (
            central + #", "amplification": "poisson""#, #", "policy": "poisson", "sampling_rate": 0.1"#,
            #", "evaluation": {"every": 1, "noise_multiplier": 1}"#, "/evaluation"
        ),
        (central, "", #", "stop": {"metric": "loss", "patience": 3}"#, "/stop"),
        (
            central + #", "clipping": {"policy": "adaptive"}"#, "", #", "aggregation": {"mode": "buffered"}"#,
            "/privacy"
        ),
    ])
    func whatCouldNotBeKeptIsRefusedWhereItStands(
        _ privacy: String,
        _ cohort: String,
        _ extra: String,
        _ pointer: String
    ) throws {
        do {
            _ = try Self.read(privacy, cohort: cohort, extra: extra)
            Issue.record("accepted")
        } catch let error as DocumentError {
            #expect(error.problems.map(\.pointer).contains(pointer), "\(error.problems)")
        }
    }
}
