import WireFormat

extension ClientRecord {
    /// The generation of the client's state, where it says one.
    var generation: ClientGeneration? {
        get {
            stateGeneration.map { ClientGeneration(issued: $0, confirmed: stateGenerationSaid ?? $0) }
        }
        set { (stateGeneration, stateGenerationSaid) = (newValue?.issued, newValue?.confirmed) }
    }

    /// The client with the generation of its next assignment; `nil` for one that says none.
    var withNextGeneration: ClientRecord? {
        guard var generation else { return nil }
        _ = generation.next()
        var client = self
        client.generation = generation
        return client
    }

    /// Smooths what one more piece of work says about the client's speed.
    mutating func noteWork(seconds: Double, _ metrics: [String: Double]) {
        func smooth(_ old: Double?, _ new: Double) -> Double { old.map { 0.7 * $0 + 0.3 * new } ?? new }
        secondsPerAssignment = smooth(secondsPerAssignment, max(0.001, seconds))
        if let steps = metrics["steps"], let time = metrics["seconds"], steps > 0, time > 0, steps / time < 1e9 {
            stepsPerSecond = smooth(stepsPerSecond, steps / time)
        }
    }
}
