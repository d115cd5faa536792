/// Run files that between them say every word that a run file may say.
enum SampleRunFiles {
    private static let start = #""population": "p", "rounds": 4, "model": {"architecture": "external"}"#

    /// `sections` beside a model without architecture, and a cohort with `cohort` in it.
    private static func external(_ sections: String = "", cohort: String = "") -> String {
        let goal = #""goal": 20"# + (cohort.isEmpty ? "" : ", " + cohort)
        return "{" + start + #", "cohort": {"# + goal + "}" + (sections.isEmpty ? "" : ", " + sections) + "}"
    }

    private static func privacy(_ terms: String, cohort: String = "", more: String = "") -> String {
        external(#""privacy": {"# + terms + "}" + (more.isEmpty ? "" : ", " + more), cohort: cohort)
    }

    private static func analytics(_ plan: String, _ sections: String = "", cohort: String = "") -> String {
        let goal = cohort.isEmpty ? "" : #", "cohort": {"# + cohort + "}"
        return #"{"population": "p", "kind": "analytics", "analytics": {"# + plan + "}" + goal
            + (sections.isEmpty ? "" : ", " + sections) + "}"
    }

    static let all: [(name: String, text: String)] =
        models + cohorts + trainings + aggregations + terms + questions + refused

    private static let models = [
        ("minimal", external()),
        (
            "cifg",
            #"""
            {"population": "p", "rounds": 4, "cohort": {"goal": 20}, "name": "keyboard", "kind": "training",
             "model": {"architecture": "cifg-lstm", "config": {"hidden": 8}, "initialization": {"seed": "7"}}}
            """#
        ),
        (
            "decoder with adapters",
            #"""
            {"population": "p", "rounds": 4, "cohort": {"goal": 20}, "metrics": ["words"],
             "model": {"architecture": "decoder", "config": {"lora": {"rank": 2}}, "base": {"run": "run_1", "version": 3}}}
            """#
        ),
        (
            "decoder with private adapters",
            #"""
            {"population": "p", "rounds": 4, "cohort": {"goal": 20}, "model": {"architecture": "decoder", "config": {"lora": {}}},
             "privacy": {"mode": "central", "noise_multiplier": 1}}
            """#
        ),
        (
            "tabular",
            #"""
            {"population": "p", "rounds": 4, "cohort": {"goal": 20}, "model": {"architecture": "tabular", "config": {}},
             "evaluation": {"every": 2, "cohort_goal": 5}, "stop": {"metric": "loss", "at_most": 0.5, "patience": 3}}
            """#
        ),
        (
            "tabular statistics",
            #"""
            {"population": "p", "rounds": 1, "cohort": {"goal": 20}, "model": {"architecture": "tabular-statistics"}}
            """#
        ),
    ]

    private static let cohorts = [
        ("first come", external(cohort: #""policy": "first_come", "lease_s": 30, "tiers": 2, "target_seconds": 60"#)),
        (
            "uniform",
            external(cohort: #""policy": "uniform", "over_selection": 1.5, "requirements": "memory_bytes >= 2e9""#)
        ),
        ("poisson", external(cohort: #""policy": "poisson", "sampling_rate": 0.25, "minimum_client_version": "1.4""#)),
        ("all", external(cohort: #""policy": "all", "min_examples": 5, "max_attempts": 3, "retry_backoff_s": 2.5"#)),
    ]

    private static let trainings = [
        (
            "local sgd",
            external(#""training": {"local": {"optimizer": "sgd", "learning_rate": 0.5, "proximal_mu": 0.1}}"#)
        ),
        (
            "local momentum",
            external(#""training": {"local": {"optimizer": "momentum", "momentum": 0.8, "epochs": 3}}"#)
        ),
        ("local adam", external(#""training": {"local": {"optimizer": "adam", "beta1": 0.8, "epsilon": 1e-7}}"#)),
        (
            "local adamw",
            external(#""training": {"local": {"optimizer": "adamw", "beta2": 0.99, "weight_decay": 0.01}}"#)
        ),
        ("weights", external(#""training": {"submit": "weights"}"#)),
        ("gradient", external(#""training": {"submit": "gradient"}"#)),
        ("scaffold", external(#""training": {"algorithm": "scaffold"}"#)),
        ("fedavg", external(#""training": {"algorithm": "fedavg", "limits": {"max_steps": 9, "max_seconds": 12.5}}"#)),
        ("int8", external(#""training": {"encoding": "int8", "model_encoding": "int8"}"#)),
        ("topk", external(#""training": {"encoding": "topk", "model_encoding": "f16"}"#)),
        ("f16", external(#""training": {"encoding": "f16", "model_encoding": "f32"}"#)),
        (
            "data rules",
            external(
                #""training": {"data": {"clean": false, "language": "de", "minimum_records": 7, "minimum_characters": 90}}"#
            )
        ),
    ]

    private static func aggregation(_ fields: String) -> String { external(#""aggregation": {"# + fields + "}") }

    private static let aggregations = [
        (
            "mean of examples",
            aggregation(#""rule": "mean", "weighting": "examples", "example_cap": 100, "norm_bound": 3.5"#)
        ),
        (
            "mean of tokens",
            aggregation(#""weight_unit": "tokens", "example_cap": {"times_median": 4}, "norm_bound": "none""#)
        ),
        ("uniform mean", aggregation(#""weighting": "uniform", "example_cap": "none", "value_bound": 32"#)),
        ("median", aggregation(#""rule": "median""#)),
        ("trimmed mean", aggregation(#""rule": "trimmed_mean", "malicious_fraction": 0.1"#)),
        ("krum", aggregation(#""rule": "krum""#)),
        ("multi-krum", aggregation(#""rule": "multi_krum", "selected_count": 5"#)),
        ("geometric median", aggregation(#""rule": "geometric_median", "weighting": "examples""#)),
        ("report anomalies", aggregation(#""anomalies": {"action": "report", "min_cosine": -0.5}"#)),
        ("exclude anomalies", aggregation(#""anomalies": {"action": "exclude", "norm_ratio": 5}"#)),
        ("quarantine anomalies", aggregation(#""anomalies": {"action": "quarantine"}"#)),
        ("server sgd", aggregation(#""optimizer": {"name": "fedavg", "learning_rate": 0.5}"#)),
        ("server momentum", aggregation(#""optimizer": {"name": "fedavgm"}"#)),
        ("server adagrad", aggregation(#""optimizer": {"name": "fedadagrad", "epsilon": 0.01}"#)),
        ("server adam", aggregation(#""optimizer": {"name": "fedadam", "beta1": 0.5}"#)),
        ("server yogi", aggregation(#""optimizer": {"name": "yogi", "beta2": 0.9}"#)),
        ("buffered", aggregation(#""mode": "buffered", "buffered": {"concurrency": 30, "max_staleness": 5}"#)),
        ("buffered with defaults", aggregation(#""mode": "buffered""#)),
        ("synchronous", aggregation(#""mode": "synchronous""#)),
    ]

    private static let terms = [
        ("no privacy", privacy(#""mode": "none""#)),
        ("central", privacy(#""mode": "central", "noise_multiplier": 1"#)),
        (
            "central by examples",
            privacy(
                #""mode": "central", "noise_multiplier": 1, "clipping": {"norm": 0.5, "policy": "flat"}"#,
                more: #""aggregation": {"weighting": "examples", "example_cap": 10}"#
            )
        ),
        (
            "central per layer",
            privacy(#""mode": "central", "noise_multiplier": 1, "clipping": {"policy": "per_layer"}"#)
        ),
        (
            "adaptive",
            privacy(#""mode": "central", "noise_multiplier": 1, "clipping": {"policy": "adaptive", "count_noise": 2}"#)
        ),
        ("laplace", privacy(#""mode": "central", "mechanism": "laplace", "noise_multiplier": 30"#)),
        ("discrete gaussian", privacy(#""mode": "central", "mechanism": "discrete_gaussian", "noise_multiplier": 2"#)),
        (
            "discrete gaussian on a grid",
            privacy(#""mode": "local", "mechanism": "discrete_gaussian", "noise_multiplier": 2, "noise_scale": 64"#)
        ),
        (
            "banded matrix",
            privacy(
                #""mode": "central", "mechanism": "banded_matrix", "noise_multiplier": 2"#,
                cohort: #""min_separation_rounds": 2"#
            )
        ),
        (
            "banded matrix with a band",
            privacy(
                #""mode": "central", "mechanism": "banded_matrix", "noise_multiplier": 2, "band": 3"#,
                cohort: #""min_separation_rounds": 4, "max_participations": 2"#
            )
        ),
        (
            "amplified",
            privacy(
                #""mode": "central", "noise_multiplier": 1, "amplification": "poisson""#,
                cohort: #""policy": "poisson", "sampling_rate": 0.01"#
            )
        ),
        ("target", privacy(#""mode": "central", "target": {"epsilon": 2}"#)),
        (
            "calibrated target",
            privacy(
                #""mode": "central", "noise_multiplier": 3, "target": {"epsilon": 2, "delta": 1e-6, "calibrated": true}"#
            )
        ),
        ("local", privacy(#""mode": "local", "noise_multiplier": 1"#)),
        ("local laplace", privacy(#""mode": "local", "mechanism": "laplace", "noise_multiplier": 1"#)),
        (
            "private evaluation",
            privacy(
                #""mode": "central", "noise_multiplier": 1"#,
                more: #"""
                    "evaluation": {"every": 2, "noise_multiplier": 5, "metrics": ["loss", "words"]},
                    "stop": {"metric": "words", "at_least": 0.5}
                    """#
            )
        ),
        (
            "private buffered",
            privacy(#""mode": "central", "noise_multiplier": 1"#, more: #""aggregation": {"mode": "buffered"}"#)
        ),
        (
            "private scaffold",
            privacy(#""mode": "central", "noise_multiplier": 1"#, more: #""training": {"algorithm": "scaffold"}"#)
        ),
    ]

    private static let questions = [
        ("histogram", analytics(#""method": "histogram", "candidates": ["a", "b"]"#, cohort: #""goal": 5"#)),
        (
            "private histogram",
            analytics(
                #""method": "histogram", "candidates": ["a", "b"], "tokens": "record", "words_per_client": 4, "minimum_count": 3"#,
                #""privacy": {"mode": "central", "mechanism": "discrete_gaussian", "noise_multiplier": 2}"#,
                cohort: #""goal": 5"#
            )
        ),
        (
            "local histogram",
            analytics(
                #""method": "histogram", "candidates": ["a"], "tokens": "character""#,
                #""privacy": {"mode": "local", "noise_multiplier": 2}"#,
                cohort: #""goal": 5"#
            )
        ),
        (
            "votes",
            analytics(
                #""method": "votes", "tokens": "word", "prefix_limit": 50"#,
                #""rounds": 6, "privacy": {"noise_multiplier": 2, "threshold": 20}"#,
                cohort: #""goal": 5"#
            )
        ),
        (
            "votes with a target",
            analytics(#""method": "votes""#, #""privacy": {"target": {"epsilon": 1}}"#, cohort: #""goal": 5"#)
        ),
        ("triehh", analytics(#""method": "triehh", "epsilon": 2, "threshold": 20"#)),
    ]

    /// What is refused, for where it is.
    private static let refused = [
        (
            "! words of nobody",
            external(#""training": {"local": {"optimizer": "lion"}, "submit": "all", "algorithm": "fedprox"}"#)
        ),
        (
            "! rule of nobody",
            aggregation(#""rule": "mode", "weighting": "age", "mode": "async", "optimizer": {"name": "lamb"}"#)
        ),
        ("! terms of nobody", privacy(#""mode": "total", "mechanism": "uniform", "clipping": {"policy": "soft"}"#)),
        (
            "! kind of nobody",
            #"{"population": "p", "kind": "sports", "rounds": 1, "cohort": {"goal": 1, "policy": "last"}}"#
        ),
        ("! rule's numbers", aggregation(#""rule": "median", "malicious_fraction": 0.1, "selected_count": 2"#)),
        (
            "! optimizer's numbers",
            aggregation(#""optimizer": {"name": "sgd", "momentum": 0.5, "beta1": 0.5, "epsilon": 1}"#)
        ),
        ("! buffered examples", aggregation(#""mode": "buffered", "weighting": "examples", "rule": "krum""#)),
        (
            "! buffered uniform cohort",
            external(#""aggregation": {"mode": "buffered"}"#, cohort: #""policy": "uniform""#)
        ),
        ("! buffered without its mode", aggregation(#""buffered": {"concurrency": 3}"#)),
        (
            "! private median",
            privacy(#""mode": "central", "noise_multiplier": 1"#, more: #""aggregation": {"rule": "median"}"#)
        ),
        (
            "! private weights",
            privacy(#""mode": "local", "noise_multiplier": 1"#, more: #""training": {"submit": "weights"}"#)
        ),
        (
            "! local topk",
            privacy(#""mode": "local", "noise_multiplier": 1"#, more: #""training": {"encoding": "topk"}"#)
        ),
        (
            "! local everything",
            privacy(
                #""mode": "local", "noise_multiplier": 1, "mechanism": "banded_matrix", "amplification": "poisson""#,
                more: #""evaluation": {"every": 1}, "stop": {"metric": "loss", "at_most": 1}"#
            )
        ),
        (
            "! adaptive laplace",
            privacy(#""mode": "local", "mechanism": "laplace", "clipping": {"policy": "adaptive"}"#)
        ),
        ("! band of gaussian", privacy(#""mode": "central", "noise_multiplier": 1, "band": 3, "noise_scale": 5"#)),
        ("! target without mode", privacy(#""target": {"epsilon": 1}"#)),
        (
            "! scaffold with anomalies",
            external(#""training": {"algorithm": "scaffold"}, "aggregation": {"anomalies": {}}"#)
        ),
        ("! momentum of sgd", external(#""training": {"local": {"momentum": 0.5, "beta1": 0.5}}"#)),
        ("! analytics of training", external(#""analytics": {"method": "histogram"}"#)),
        (
            "! trie with a list",
            analytics(#""method": "votes", "candidates": ["a"], "words_per_client": 2"#, cohort: #""goal": 1"#)
        ),
        ("! poisson without rate", external(cohort: #""policy": "poisson""#)),
    ]
}
