public import WireFormat

extension OperatorClient {
    /// Creates a population; an administrator's right.
    ///
    /// - Parameters:
    ///   - name: Its name.
    ///   - epsilon: The ε of its privacy budget, 1000 at most; `nil`: it has no budget, and runs promise nothing.
    ///   - delta: The budget's δ.
    /// - Returns: The population.
    /// - Throws: ``OperatorError``, `ClientError` or `DecodingError`.
    @discardableResult
    public func createPopulation(
        _ name: String,
        epsilon: Double? = nil,
        delta: Double = 1e-5
    ) async throws -> PopulationView {
        let budget = epsilon.map { BudgetSpecification(epsilon: $0, delta: delta) }
        return try await answer(to: Endpoints.createPopulation(), PopulationRequest(name: name, budget: budget))
            .decoded()
    }

    /// One population.
    ///
    /// - Parameter population: Its id or name.
    /// - Returns: What the server says about it.
    /// - Throws: ``OperatorError``, `ClientError` or `DecodingError`.
    public func population(_ population: String) async throws -> PopulationView {
        try await answer(to: Endpoints.population(PopulationReference(population))).decoded()
    }

    /// All populations, oldest first, in as many requests as there are pages.
    public func populations() async throws -> [PopulationView] { try await items(of: Endpoints.populations()) }

    /// Lowers a budget, or raises it with a reason; an administrator's right.
    ///
    /// - Parameters:
    ///   - population: Its id or name.
    ///   - epsilon: The new ε.
    ///   - reason: Why it is raised; stays in the ledger.
    /// - Returns: The population.
    /// - Throws: ``OperatorError``, `ClientError` or `DecodingError`.
    @discardableResult
    public func changeBudget(
        of population: String,
        epsilon: Double,
        reason: String? = nil
    ) async throws -> PopulationView {
        try await answer(
            to: Endpoints.changeBudget(PopulationReference(population)),
            BudgetChangeRequest(epsilon: epsilon, reason: reason)
        ).decoded()
    }

    /// Makes a token that registers clients; an administrator's right.
    ///
    /// - Parameters:
    ///   - population: Its id or name.
    ///   - clientCount: How many clients it registers.
    /// - Returns: The token, whose text is shown this once.
    /// - Throws: ``OperatorError``, `ClientError` or `DecodingError`.
    public func createEnrollmentToken(for population: String, clientCount: Int) async throws -> IssuedToken {
        try await answer(
            to: Endpoints.createEnrollmentToken(PopulationReference(population)),
            EnrollmentTokenRequest(maxUses: clientCount)
        ).decoded()
    }
}
