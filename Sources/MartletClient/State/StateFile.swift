import WireFormat

/// A JSON file of a state directory: its name, and the one type that is written to it and read from it.
struct StateFile<Value: Codable & Sendable>: Sendable {
    let name: String
}

extension StateFile where Value == ClientState.Credential {
    static var credential: Self { Self(name: "credential.json") }
}

extension StateFile where Value == [String] {
    /// The idempotency key of the registration.
    static var registration: Self { Self(name: "registration.json") }
}

extension StateFile where Value == ClientLedger {
    static var ledger: Self { Self(name: "ledger.json") }
}

extension StateFile where Value == AssignmentLog {
    static var assignments: Self { Self(name: "assignments.json") }
}

extension StateFile where Value == WorkTries {
    static var tries: Self { Self(name: "attempt.json") }
}

extension StateFile where Value == PendingDelivery.Note {
    static var delivery: Self { Self(name: "pending.json") }
}

extension StateFile where Value == PopulationLedgerHead {
    static var ledgerHead: Self { Self(name: "ledger-head.json") }

    /// A head that was put aside.
    ///
    /// A population's name has letters, digits, `_` and `-`, by the form of a head.
    static func ledgerHead(of population: String) -> Self { Self(name: "ledger-head.\(population).json") }
}
