/// Which state of a device a client speaks for: a number that the server raises with each assignment that it makes.
///
/// A device writes the number of an assignment down before it begins with it, and says the last one at each check-in. Good are
/// the number of the last assignment, and the last one that the device is known to have written down: the assignment after
/// it may not have arrived. Any other comes from a copy of the device's state, whose ledger does not know what the other
/// copy has spent. No number is given twice, so that two copies never have the same one again.
package struct ClientGeneration: Equatable, Sendable {
    /// The number of the last assignment.
    package private(set) var issued: Int
    /// The last number that the device is known to have.
    package private(set) var confirmed: Int

    /// The largest number.
    package static let limit = 1_000_000_000_000_000

    package init(issued: Int, confirmed: Int) {
        self.issued = issued
        self.confirmed = min(issued, confirmed)
    }

    /// Takes what a client says at a check-in.
    ///
    /// - Returns: Whether it speaks for the state that the server knows. A number above the server's is one that a restored
    ///   server has forgotten.
    package mutating func confirm(_ stated: Int) -> Bool {
        if stated >= issued { (issued, confirmed) = (stated, stated) }
        return stated == confirmed
    }

    /// The client has acted on its last assignment, so it has it.
    package mutating func acknowledge() { confirmed = issued }

    /// Gives the number of a new assignment.
    package mutating func next() -> Int {
        issued = min(issued + 1, Self.limit)
        return issued
    }
}
