/// A client as it is shown.
package struct ClientView: Codable, Equatable, Sendable {
    package var id: String
    package var population: String
    package var name: String?
    package var state: ClientStanding
    package var registeredAt: String
    package var lastSeenAt: String?
    package var participations: [String: Int]
    package var labels: [String: String]
    package var capabilities: ClientCapabilities
    /// From its assignments to its updates, smoothed.
    package var secondsPerAssignment: Double?
    /// Why the client gets no work any more.
    package var quarantineReason: String?
    package var quarantinedAt: String?

    package init(
        id: String,
        population: String,
        name: String? = nil,
        state: ClientStanding,
        registeredAt: String,
        lastSeenAt: String? = nil,
        participations: [String: Int],
        labels: [String: String],
        capabilities: ClientCapabilities,
        secondsPerAssignment: Double? = nil,
        quarantineReason: String? = nil,
        quarantinedAt: String? = nil
    ) {
        self.id = id
        self.population = population
        self.name = name
        self.state = state
        self.registeredAt = registeredAt
        self.lastSeenAt = lastSeenAt
        self.participations = participations
        self.labels = labels
        self.capabilities = capabilities
        self.secondsPerAssignment = secondsPerAssignment
        self.quarantineReason = quarantineReason
        self.quarantinedAt = quarantinedAt
    }
}
