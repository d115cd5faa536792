/// What is proven of everything that was released of a population: one sentence with all that belongs to an ε.
///
/// A claim is made of the charges themselves, so that it cannot promise a relation, an accountant or a trust that was not
/// charged.
package struct PrivacyClaim: Codable, Equatable, Sendable {
    /// What has to be true beside the arithmetic, for the claim to hold.
    package enum Assumption: String, Codable, CaseIterable, Sendable {
        /// Mode `central`: the server clips and noises what clients sent.
        case serverAddsNoise = "server_adds_noise"
        /// Amplified rounds: nobody whom the claim is against learns who was drawn, or how many.
        case drawIsSecret = "draw_is_secret"
        /// TrieHH of earlier versions: who was drawn knows, and can tell by that whether others were.
        case noClientColludes = "no_client_colludes"

        /// The assumption as the end of a sentence.
        package var sentence: String {
            switch self {
            case .serverAddsNoise: "the server clipped and noised what clients sent, and has to be trusted until then"
            case .drawIsSecret:
                "who was drawn, and how many, is secret: the claim does not hold against the server's staff, its logs and "
                    + "backups, or an observer of its network"
            case .noClientColludes:
                "words were found by an earlier version's sampled votes, which protect from readers who control none of "
                    + "the clients, and not from clients that work together"
            }
        }
    }

    /// Of everything that counts, at ``delta``.
    package var epsilon: Double
    /// The δ that is proven: the budget's, or 1.05 times that where mechanisms were mixed in later.
    package var delta: Double
    package var unit = BudgetUnit.client
    /// Neighbouring relations of the charges, each once.
    package var relations: [NeighbouringRelation]
    /// `poisson` where the cost counts on secret samples, else `none`.
    package var amplification: Amplification
    package var accountant: String
    package var assumptions: [Assumption]
    /// How many rows of the population's own ledger the claim is about.
    package var ledgerRows: Int?

    package init(
        epsilon: Double,
        delta: Double,
        unit: BudgetUnit = .client,
        relations: [NeighbouringRelation],
        amplification: Amplification,
        accountant: String,
        assumptions: [Assumption],
        ledgerRows: Int? = nil
    ) {
        self.epsilon = epsilon
        self.delta = delta
        self.unit = unit
        self.relations = relations
        self.amplification = amplification
        self.accountant = accountant
        self.assumptions = assumptions
        self.ledgerRows = ledgerRows
    }

    /// The relations in one word or several.
    package var relation: String { relations.map(\.rawValue).joined(separator: ", ") }

    /// `(ε = 4.2, δ = 1e-05), relation zero_out, by the accountant gaussian`.
    package func terms(epsilon shown: String? = nil) -> String {
        "(ε = \(shown ?? "\(epsilon)"), δ = \(delta)), relation \(relation)"
            + (amplification == .none ? "" : ", amplified by \(amplification) sampling")
            + ", by the accountant \(accountant)"
    }

    /// Whom the claim is against, and what it rests on.
    package var protection: String {
        let who =
            assumptions.contains(.noClientColludes)
            ? "It holds against readers of everything that was published"
            : assumptions.isEmpty
                ? "It holds against readers of everything that was published, other clients together, and the server"
                : "It holds against readers of everything that was published and other clients together"
        return ([who] + assumptions.map(\.sentence)).joined(separator: "; ") + "."
    }
}
