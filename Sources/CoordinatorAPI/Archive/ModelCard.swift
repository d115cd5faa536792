import Coordination
import WireFormat

/// The page that goes with a published model: what it is, how it was trained, and what privacy it has.
struct ModelCard {
    var run: RunView
    var version: ModelVersionView
    /// The round that made the version; `nil` for the initial model.
    var round: RoundView?
    var population: PopulationView
    /// What is proven of everything that was released up to the version and its measurements.
    var claim: PrivacyClaim?
    /// The models of other runs that the version builds on, the nearest first.
    var bases: [Base] = []

    /// A model that the archive holds, or that one in it began from.
    struct Base {
        var run: RunView
        var version: Int
        var population: PopulationView
        var claim: PrivacyClaim?
    }

    /// The card as Markdown.
    var text: String {
        """
        # \(MarkdownText.escaped(run.name)), version \(version.version)

        \(introduction)

        | | |
        |---|---|
        | architecture | \(run.specification.model.architecture) |
        | file | `model.safetensors`, \(version.bytes) bytes, SHA-256 `\(version.sha256)` |
        | made | \(version.createdAt) |
        | run | `\(run.id)`, \(run.committedRounds) of \(run.specification.rounds) rounds committed, \(run.state) |

        ## Data

        Texts or records of the population "\(MarkdownText.escaped(population.name))". They stayed with the clients; the server saw updates only.
        \(cohort)

        ## Algorithm

        \(algorithm)

        ## Privacy

        \(privacy)\(protection)\(basis)

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
        // How many came is what the claim keeps secret: those who know who else came would know the rest.
        guard !run.specification.privacy.hasSecretDraw else {
            return "Each client was in a round by a secret draw with probability \(cohort.samplingRate ?? 0); how many "
                + "were is not told."
        }
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
        guard terms.mode != .none else {
            return
                "No differential privacy: updates were not noised, and the model may remember what it was trained on."
        }
        guard let claim, let budget = population.budget else {
            return "Nothing was released of the population by the time of this version."
        }
        let amplification =
            claim.amplification == .none ? "without amplification" : "amplified by \(claim.amplification) sampling"
        let relations = claim.relations.map { "`\($0)`" }.joined(separator: " and ")
        return """
            Differentially private at the level of one **\(claim.unit)**. With this version and what was measured of it, \
            everything that was released of the population, by all its runs, is **(ε = \(claim.epsilon), δ = \
            \(claim.delta))**, relation \(relations), \(amplification), by the accountant `\(claim.accountant)`. \
            \(claim.protection)

            Mechanism of this run: \(terms.mechanism), mode `\(terms.mode)`, clipping norm \(terms.clipping.norm), noise \
            multiplier \(terms.noiseMultiplier). The population's budget is ε = \(budget.epsilon), δ = \(budget.delta). The \
            claim is of the first \(claim.ledgerRows ?? 0) rows of the population's ledger; later versions and other runs add to it.
            """
    }

    /// What the server saw of single updates, where that was not all.
    private var protection: String {
        guard let protection = run.specification.protection else { return "" }
        let noise =
            run.specification.privacy.mode == .none
            ? "Neither added noise: there is no (ε, δ) towards anybody."
            : "The helper added as much noise again, so the claim holds towards the server and towards the helper, and readers of the "
                + "model face √2 times the noise."
        return """


            Updates were masked. The server saw sums of at least \(max(1, run.specification.cohort.minimum)) of them, and a helper \
            (domain `\(MarkdownText.escaped(protection.domain))`) the masks only. Server and helper together could have seen every \
            update. \(noise)
            """
    }

    /// What is promised of what the version builds on: its own claim says nothing of it.
    private var basis: String {
        guard !bases.isEmpty else { return "" }
        let items = bases.map { base in
            let name =
                "version \(base.version) of run `\(base.run.id)` (\(MarkdownText.escaped(base.run.name))), population "
                + "\"\(MarkdownText.escaped(base.population.name))\""
            guard base.version > 0 else {
                return "- \(name): an initial model, of which nothing was learned from clients."
            }
            guard base.run.specification.privacy.mode != .none, let claim = base.claim else {
                return "- \(name): **none**. It was trained without noise, and may remember what it was trained on."
            }
            return
                "- \(name): (ε = \(claim.epsilon), δ = \(claim.delta)) at the level of one \(claim.unit), for its own population."
        }
        return
            "\n\nThe version builds on models of other runs, and what is said above is not said of their data. Their own claims:\n\n"
            + items.joined(separator: "\n")
    }

    private var measurements: String {
        let rows = (version.metrics ?? [:]).sorted { $0.key < $1.key }.flatMap { source, values in
            values.sorted { $0.key < $1.key }.map {
                "| \(MarkdownText.escaped(source)) | \(MarkdownText.escaped($0.key)) | \($0.value) |"
            }
        }
        guard !rows.isEmpty else { return "Nothing was measured of this version." }
        return (["| source | metric | value |", "|---|---|---|"] + rows).joined(separator: "\n")
    }
}
