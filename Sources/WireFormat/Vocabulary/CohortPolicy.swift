/// How a cohort is chosen.
package enum CohortPolicy: String, ClosedWord {
    /// Who checks in first is in.
    case firstCome = "first_come"
    /// Uniformly from those who check in while the round selects.
    case uniform
    /// Each client of the population by a coin of the server's own; nobody is replaced.
    case poisson
    /// Every client of the population.
    case all

    /// Whether the cohort is fixed before anyone checks in.
    package var isDrawn: Bool {
        switch self {
        case .poisson, .all: true
        case .firstCome, .uniform: false
        }
    }
}
