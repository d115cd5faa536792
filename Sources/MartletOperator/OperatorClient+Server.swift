public import WireFormat

extension OperatorClient {
    /// Makes a token for a person or program that operates the server; an administrator's right.
    ///
    /// - Parameters:
    ///   - role: What its bearer may do.
    ///   - name: Who or what will use it.
    ///   - lifetimeSeconds: Seconds until it stops working; `nil`: it does not expire.
    /// - Returns: The token, whose text is shown this once.
    /// - Throws: ``OperatorError``, `ClientError` or `DecodingError`.
    public func createToken(
        _ role: StaffRole,
        name: String,
        lifetimeSeconds: Double? = nil
    ) async throws -> IssuedToken {
        try await answer(
            to: Endpoints.createToken(),
            TokenRequest(role: role, name: name, expiresInS: lifetimeSeconds)
        ).decoded()
    }

    /// Whether the server answers.
    public func health() async throws -> HealthView { try await answer(to: Endpoints.health()).decoded() }

    /// Whether the server can work: its data are verified, and disk and database can be written.
    public func readiness() async throws -> HealthView { try await answer(to: Endpoints.readiness()).decoded() }
}
