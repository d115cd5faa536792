import StrictJSON
import Testing
import WireFormat

/// What goes with what is checked when a run is created, and the field that is wrong is named.
struct AlgorithmCompatibilityTests {
    private func problems(_ more: String) -> [String] {
        let text = #"{"population": "p", "rounds": 2, "model": {"architecture": "external"}, \#(more)}"#
        do throws(DocumentError) {
            _ = try RunSpecification.read(JSONValue.parse(Array(text.utf8)))
            return []
        } catch {
            return error.problems.map(\.pointer)
        }
    }

    private let cohort = #""cohort": {"goal": 20, "minimum": 20}"#
    private let central = #""privacy": {"mode": "central", "noise_multiplier": 1}, "#
    private let local = #""privacy": {"mode": "local", "noise_multiplier": 1}, "#

    @Test(arguments: ["median", "trimmed_mean", "krum", "multi_krum", "geometric_median"])
    func robustRulesGoWithNoneAndLocalButNotWithCentral(rule: String) {
        let aggregation = #", "aggregation": {"rule": "\#(rule)"}"#
        #expect(problems(cohort + aggregation) == [])
        #expect(problems(local + cohort + aggregation) == [])
        #expect(problems(central + cohort + aggregation) == ["/aggregation/rule"])
    }

    @Test(arguments: [
        (#""aggregation": {"norm_bound": 1}"#, "/aggregation/norm_bound"),
        (#""aggregation": {"anomalies": {}}"#, "/aggregation/anomalies"),
        (#""training": {"submit": "weights"}"#, "/training/submit"),
    ])
    func whatNeedsSingleUpdatesIsRefusedUnderCentralPrivacy(field: String, pointer: String) {
        #expect(problems(cohort + ", " + field) == [])
        #expect(problems(central + cohort + ", " + field) == [pointer])
    }

    @Test(arguments: [
        (#""aggregation": {"rule": "median", "weighting": "examples"}"#, "/aggregation/weighting"),
        (#""aggregation": {"malicious_fraction": 0.1}"#, "/aggregation/malicious_fraction"),
        (#""aggregation": {"rule": "krum", "malicious_fraction": 0.45}"#, "/aggregation/malicious_fraction"),
        (#""aggregation": {"rule": "krum", "selected_count": 2}"#, "/aggregation/selected_count"),
        (#""aggregation": {"optimizer": {"name": "adam", "momentum": 0.9}}"#, "/aggregation/optimizer/momentum"),
        (#""aggregation": {"optimizer": {"name": "sgd", "epsilon": 1}}"#, "/aggregation/optimizer/epsilon"),
        (#""aggregation": {"optimizer": {"name": "yogi", "epsilon": 0}}"#, "/aggregation/optimizer/epsilon"),
        (#""training": {"local": {"momentum": 0.9}}"#, "/training/local/momentum"),
        (#""training": {"local": {"beta1": 0.8}}"#, "/training/local/beta1"),
        (#""training": {"local": {"optimizer": "momentum", "beta2": 0.9}}"#, "/training/local/beta2"),
        (#""training": {"local": {"optimizer": "adamw", "epsilon": 0}}"#, "/training/local/epsilon"),
        (#""training": {"submit": "gradient", "local": {"proximal_mu": 0.1}}"#, "/training/submit"),
        (#""training": {"submit": "gradient", "algorithm": "scaffold"}"#, "/training/algorithm"),
        (#""training": {"algorithm": "scaffold", "local": {"optimizer": "adam"}}"#, "/training/algorithm"),
        (
            #""training": {"algorithm": "scaffold"}, "aggregation": {"rule": "median"}"#,
            "/aggregation/rule"
        ),
        (
            #""training": {"algorithm": "scaffold"}, "aggregation": {"weighting": "examples"}"#,
            "/aggregation/weighting"
        ),
    ])
    func whatDoesNotGoTogetherIsNamed(field: String, pointer: String) {
        #expect(problems(cohort + ", " + field) == [pointer])
    }

    @Test func namesOfThePapersAreTaken() throws {
        let text = #"""
            {"population": "p", "rounds": 2, "model": {"architecture": "external"}, "cohort": {"goal": 2},
             "aggregation": {"optimizer": {"name": "fedadam", "epsilon": 0.01}}}
            """#
        let optimizer = try RunSpecification.read(JSONValue.parse(Array(text.utf8))).aggregation.optimizer
        #expect(optimizer == .adam(learningRate: 0.01, .init(beta1: 0.9, beta2: 0.99, epsilon: 0.01)))
    }
}
