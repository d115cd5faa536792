import Coordination
import WireFormat

/// The page that goes with a published model: what it is, how it was trained, and what privacy it has.
struct ModelCard {
    var run: RunView
    var version: ModelVersionView
    /// The round that made the version; `nil` for the initial model.
    var round: RoundView?
    var population: PopulationView

    /// The card as Markdown.
    var text: String {
        """
        # \(run.name), version \(version.version)

        \(introduction)

        | | |
        |---|---|
        | architecture | \(run.specification.model.architecture) |
        | file | `model.safetensors`, \(version.bytes) bytes, SHA-256 `\(version.sha256)` |
        | made | \(version.createdAt) |
        | run | `\(run.id)`, \(run.committedRounds) of \(run.specification.rounds) rounds committed, \(run.state) |

        ## Data

        Texts or records of the population "\(population.name)". They stayed with the clients; the server saw updates only.
        \(cohort)

        ## Algorithm

        \(algorithm)

        ## Privacy

        \(privacy)

        ## Measured

        \(measurements)

        The whole specification is in `run.json`.

        """
    }

    private var introduction: String {
        version.version == 0
            ? "The initial model: nothing was learned from any client yet."
            : "Trained by federated learning with Martlet, after \(version.version) rounds."
    }

    private var cohort: String {
        guard let round else { return "" }
        let cohort = run.specification.cohort
        let cap =
            cohort.maxParticipations > 0
            ? ", and no client took part more than \(cohort.maxParticipations) times in the run" : ""
        return "Each round wanted \(cohort.goal) updates; the last one had \(round.accepted)\(cap)."
    }

    private var algorithm: String {
        let local = run.specification.training.local
        let aggregation = run.specification.aggregation
        return """
            On the device: \(local.optimizer), learning rate \(local.learningRate), batches of \(local.batchSize), \
            \(local.epochs) epochs. On the server: \(aggregation.rule) of the updates, weighting \
            \(aggregation.weighting), then \(aggregation.optimizer.name) with learning rate \
            \(aggregation.optimizer.learningRate). Sums are of integers: the same updates give the same model to the bit.
            """
    }

    private var privacy: String {
        let terms = run.specification.privacy
        guard terms.mode != "none" else {
            return
                "No differential privacy: updates were not noised, and the model may remember what it was trained on."
        }
        guard version.version > 0, let epsilon = round?.epsilon, let budget = population.budget else {
            return "Nothing was released yet."
        }
        let relation = terms.mode == "local" ? "replace_one" : budget.relation
        let trust =
            terms.mode == "local"
            ? "each client noised its update itself, so nobody else need be trusted"
            : "the server clipped and noised the sum, and must be trusted until then"
        return """
            Differentially private at the level of one **\(budget.unit)**: with this version, everything that was \
            released of the population is **(ε = \(epsilon), δ = \(budget.delta))**, relation `\(relation)`, \
            by the accountant `\(budget.accountant)`. Mechanism: \(terms.mechanism), mode `\(terms.mode)`: \(trust). \
            Clipping norm \(terms.clipping.norm), noise multiplier \(terms.noiseMultiplier). The population's budget is \
            ε = \(budget.epsilon).
            """
    }

    private var measurements: String {
        let rows = (version.metrics ?? [:]).sorted { $0.key < $1.key }.flatMap { source, values in
            values.sorted { $0.key < $1.key }.map { "| \(source) | \($0.key) | \($0.value) |" }
        }
        guard !rows.isEmpty else { return "Nothing was measured of this version." }
        return (["| source | metric | value |", "|---|---|---|"] + rows).joined(separator: "\n")
    }
}
