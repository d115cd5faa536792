/// What a run would be, as far as it can be said before it is created.
package struct RunPlan: Codable, Equatable, Sendable {
    /// With every default filled in.
    package var specification: RunSpecification
    /// `null` where the weights are still to be uploaded.
    package var parameterCount: Int?
    /// Bytes of one model or one plain update.
    package var modelBytes: Int?
    /// Bytes up over all rounds, when every round has the updates it wants.
    package var bytesUp: Int?
    /// Bytes down over all rounds, when every client that is assigned fetches the model.
    package var bytesDown: Int?
    /// The cost on the population's budget; `null` without privacy.
    package var privacy: PrivacyProjection?
    /// What its protection comes to; absent without protection, and where the weights are still to be uploaded.
    package var protection: ProtectionPlan?
    /// Clients of the population that may take part now.
    package var clients: Int
    /// What one client counts for at most, in plain words; empty with privacy, whose terms say it.
    package var clientLimits: [String]
    /// What would keep the run from its end, in plain words.
    package var warnings: [String]

    package init(
        specification: RunSpecification,
        parameterCount: Int? = nil,
        modelBytes: Int? = nil,
        bytesUp: Int? = nil,
        bytesDown: Int? = nil,
        privacy: PrivacyProjection? = nil,
        clients: Int,
        clientLimits: [String],
        warnings: [String]
    ) {
        self.specification = specification
        self.parameterCount = parameterCount
        self.modelBytes = modelBytes
        self.bytesUp = bytesUp
        self.bytesDown = bytesDown
        self.privacy = privacy
        self.clients = clients
        self.clientLimits = clientLimits
        self.warnings = warnings
    }
}
