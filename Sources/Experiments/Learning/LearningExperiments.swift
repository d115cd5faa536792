/// What is measured, in the order of `docs/results.md`.
enum LearningExperiments {
    static let all = [
        characters, words, optimizers, poisoning, compression, tang, optimizerRates,
    ]

    /// FedAvg beside FedSGD on next characters by speaking role: `char-small`, 10 clients a round.
    private static let characters = LearningExperiment(
        name: "shakespeare-characters",
        cases: [
            LearningCase(
                name: "FedAvg",
                rounds: 75,
                measured: [1, 5, 10, 15, 20, 25, 30, 40, 50, 60, 65, 70, 75],
                goal: 10,
                training: fedAvg,
                aggregation: mean,
                task: .shakespeareCharacters
            ),
            LearningCase(
                name: "FedSGD",
                rounds: 75,
                measured: [1, 5, 10, 15, 20, 25, 30, 40, 50, 60, 65, 70, 75],
                goal: 10,
                training: #"{"submit": "gradient"}"#,
                aggregation: mean,
                task: .shakespeareCharacters
            ),
        ]
    )

    /// Next words by speaking role, 20 clients a round.
    private static let words = LearningExperiment(
        name: "shakespeare-words",
        cases: [
            LearningCase(
                name: "FedAvg",
                rounds: 150,
                measured: [1, 25, 50, 75, 92, 94, 96, 98, 100, 125, 142, 144, 146, 148, 150],
                goal: 20,
                training: #"{"local": {"learning_rate": 2, "batch_size": 4, "clip": 5}}"#,
                aggregation: mean,
                task: .shakespeareWords
            )
        ]
    )

    /// Server and client optimisers on the same clients, data and rounds: 20 clients, at most 12 windows each, 40 rounds.
    private static let optimizers = LearningExperiment(
        name: "optimizers",
        cases: [
            short("FedAvg", server: #"{"name": "fedavg", "learning_rate": 1}"#),
            short("FedAvgM", server: #"{"name": "fedavgm", "learning_rate": 0.3, "momentum": 0.9}"#),
            short("FedAdagrad", server: #"{"name": "fedadagrad", "learning_rate": 0.1}"#),
            short("FedAdam", server: #"{"name": "fedadam", "learning_rate": 0.03}"#),
            short("FedYogi", server: #"{"name": "fedyogi", "learning_rate": 0.03}"#),
            short("FedProx μ=0.1", local: #""proximal_mu": 0.1"#),
            short("SCAFFOLD", training: #""algorithm": "scaffold","#, weighting: "uniform"),
            short("local AdamW", local: #""learning_rate": 0.01, "optimizer": "adamw""#),
        ],
        drawn: ["FedAvg", "FedAvgM", "FedAdagrad", "FedAdam", "FedYogi", "FedProx μ=0.1", "SCAFFOLD", "local AdamW"]
    )

    /// Other rates of the server optimisers of ``optimizers``: one seed each.
    private static let optimizerRates = LearningExperiment(
        name: "optimizer-rates",
        cases: [
            ("FedAvgM", "fedavgm", ["0.1", "0.3", "1"]), ("FedAdagrad", "fedadagrad", ["0.03", "0.1", "0.3"]),
            ("FedAdam", "fedadam", ["0.01", "0.03", "0.1"]), ("FedYogi", "fedyogi", ["0.01", "0.03", "0.1"]),
        ].flatMap { name, rule, rates in
            rates.map { rate in
                var item = short("\(name) η=\(rate)", server: #"{"name": "\#(rule)", "learning_rate": \#(rate)}"#)
                item.measured = [40]
                item.seeds = [1]
                return item
            }
        },
        drawn: ["none"]
    )

    /// A fifth of the clients send minus five times their change; every rule meets the same ones.
    ///
    /// Up to 40 windows of each client: with 12, equal weights have hardly begun to learn after 40 rounds, liars or none.
    private static let poisoning = LearningExperiment(
        name: "poisoning",
        cases: [
            short("mean, nobody lies", weighting: "uniform", windows: 40),
            poisoned("mean", ""),
            poisoned("median", #""rule": "median""#),
            poisoned("trimmed mean", #""rule": "trimmed_mean", "malicious_fraction": 0.35"#),
            poisoned("Krum", #""rule": "krum", "malicious_fraction": 0.35"#),
            poisoned("multi-Krum", #""rule": "multi_krum", "malicious_fraction": 0.35"#),
            poisoned("geometric median", #""rule": "geometric_median""#),
            poisoned("norm bound 2", #""norm_bound": 2"#),
            poisoned(
                "excluded by norm",
                #""anomalies": {"action": "exclude", "norm_ratio": 3}"#,
                minimum: 5
            ),
        ],
        drawn: [
            "mean, nobody lies", "mean", "median", "trimmed mean", "Krum", "multi-Krum", "geometric median",
            "norm bound 2",
        ]
    )

    private static func poisoned(_ name: String, _ rule: String, minimum: Int? = nil) -> LearningCase {
        // Each rule by itself: the default bound on norms would stand beside it.
        let bound = rule.contains("norm_bound") ? [] : [#""norm_bound": "none""#]
        let rules = ((rule.isEmpty ? [] : [rule]) + bound).joined(separator: ", ")
        var item = short(name, weighting: "uniform", rule: rules, windows: 40)
        item.minimum = minimum
        item.poisonedShare = 0.2
        return item
    }

    /// Encodings of the same updates.
    private static let compression = LearningExperiment(
        name: "compression",
        cases: [
            ("none", "f32"), ("8 bits", "int8"), ("4 bits", "rotated4"), ("1 bit", "rotated1"), ("top 1 %", "topk"),
        ].map { name, encoding in short(name, training: #""encoding": "\#(encoding)","#) }
    )

    /// Poems by poet in characters and in byte pairs.
    private static let tang = LearningExperiment(
        name: "tang-poems",
        cases: [("characters", LearningTaskName.tangCharacters), ("byte pairs", .tangBytePairs)].map { name, task in
            LearningCase(
                name: name,
                rounds: 30,
                measured: [0, 1, 5, 10, 15, 20, 25, 30],
                goal: 10,
                training: #"{"local": {"learning_rate": 2, "batch_size": 4, "clip": 1}, "data": {"clean": false}}"#,
                aggregation: mean,
                task: task
            )
        }
    )

    private static let fedAvg = #"{"local": {"learning_rate": 3, "batch_size": 4, "clip": 1}}"#
    private static let mean = #"{"optimizer": {"name": "fedavg", "learning_rate": 1}}"#

    /// The short task that comparisons share: `char-small`, 20 clients of at most 12 windows of 80 characters, 40 rounds.
    private static func short(
        _ name: String,
        local: String? = nil,
        training: String = "",
        weighting: String = "examples",
        rule: String = "",
        windows: Int = 12,
        server: String = #"{"name": "fedavg", "learning_rate": 1}"#
    ) -> LearningCase {
        var rate = #""batch_size": 4, "clip": 1"#
        if local?.contains("learning_rate") != true { rate += #", "learning_rate": 3"# }
        if let local { rate += ", " + local }
        let rule = rule.isEmpty ? "" : rule + ", "
        return LearningCase(
            name: name,
            rounds: 40,
            measured: [5, 10, 15, 20, 25, 30, 35, 40],
            goal: 20,
            training: #"{\#(training) "local": {\#(rate)}, "limits": {"max_examples": \#(windows)}}"#,
            aggregation: #"{\#(rule)"weighting": "\#(weighting)", "optimizer": \#(server)}"#,
            task: .shakespeareCharacters
        )
    }
}
