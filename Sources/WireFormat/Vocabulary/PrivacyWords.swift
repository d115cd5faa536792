/// Against whom a run's privacy holds.
package enum PrivacyMode: String, ClosedWord {
    /// Nothing is promised.
    case none
    /// The server noises sums: it is trusted, and whoever sees what it publishes learns little.
    case central
    /// Each device noises its own update: the server need not be trusted.
    case local
}

/// How single updates are kept from the server.
package enum ProtectionKind: String, ClosedWord {
    /// The server sees every update.
    case none
    /// A second party sums masks, and the server sees sums only.
    case helper
}

/// What noise a run adds, or which other mechanism its promise rests on.
///
/// The same words stand in run files, assignments, a device's ledger and the population's.
package enum MechanismWord: String, ClosedWord {
    case gaussian, laplace
    case discreteGaussian = "discrete_gaussian"
    case bandedMatrix = "banded_matrix"
    /// Of votes: Gaussian noise on counts that are not zero, and a threshold.
    case gaussianSparseHistogram = "gaussian_sparse_histogram"
    /// TrieHH, of runs of earlier versions: no noise, a secret sample and a threshold.
    case sampleAndThreshold = "sample_and_threshold"

    /// Whether updates are votes, which are neither clipped nor noised one by one.
    package var isForVotes: Bool { self == .gaussianSparseHistogram || self == .sampleAndThreshold }
}

/// How updates are bounded.
package enum ClippingPolicy: String, ClosedWord {
    /// The whole update, to an L2 norm.
    case flat
    /// Each tensor, to its share of the L2 norm.
    case perLayer = "per_layer"
    /// The whole update, to an L1 norm.
    case l1
    /// As `flat`, by a norm that follows a quantile of the updates' norms.
    case adaptive
}

/// Whether the cost counts on a secret sample.
package enum Amplification: String, ClosedWord {
    case none
    /// The server's own secret coins, one for each client and round.
    case poisson
}

/// Where a charge of the ledger stands.
package enum ChargeState: String, ClosedWord {
    case reserved, committed, released
}

/// What a charge is for that is no round of training.
package enum ReleaseWord: String, ClosedWord {
    /// What clients measured of a version.
    case evaluation
}

/// What a row of the ledger is about that is no charge.
package enum LedgerNoteKind: String, ClosedWord {
    /// A budget was set.
    case budget
    /// An administrator has accepted a restored ledger.
    case acknowledgement
}

/// What a budget is made of.
package enum BudgetPart: String, ClosedWord {
    case epsilon, delta
}

/// What a budget is counted for.
package enum BudgetUnit: String, ClosedWord {
    case client
}

/// Who judges a population's releases.
package enum AccountantChoice: String, ClosedWord {
    /// The exact one where it applies, else what its charges allow.
    case auto
    /// Rényi divergences at a finite set of orders, as a filter.
    case rdp
}

/// Which data sets a promise keeps apart.
package enum NeighbouringRelation: String, ClosedWord {
    case zeroOut = "zero_out"
    case replaceOne = "replace_one"
    case addRemove = "add_remove"
}
