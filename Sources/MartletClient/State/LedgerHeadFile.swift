import MartletTransport
import WireFormat

/// Where a device keeps the last head that it was told of the server's privacy ledger: `ledger-head.json`.
///
/// The file is for the population that the device is registered in, which no server can change: it names one population. When
/// the device registers anew it is put aside under that population's name, and counts again when a head of that population
/// comes.
struct LedgerHeadFile: Sendable {
    let files: StateFiles

    static let name = "ledger-head.json"

    /// The head that is kept; before there is one since the registration, that of the population from an earlier registration.
    ///
    /// - Throws: `ClientError` with code `state_damaged`, or of this device's files.
    func known(population: String?) throws -> PopulationLedgerHead? {
        if let head = try read(Self.name) { return head }
        return try population.flatMap { try read(Self.name(of: $0)) }
    }

    /// Keeps a head.
    func keep(_ head: PopulationLedgerHead) throws { try files.write(Self.name, head) }

    /// Puts the head aside, so that another population's may come; one that cannot be read stays, and refuses all.
    func setAside() throws {
        do {
            guard let head = try read(Self.name) else { return }
            try files.move(Self.name, to: Self.name(of: head.population))
        } catch let error as ClientError where error.isStateDamaged {}
    }

    private func read(_ name: String) throws -> PopulationLedgerHead? {
        guard let head = try files.read(name, PopulationLedgerHead.self) else { return nil }
        guard head.isWellFormed else {
            throw ClientError(code: "state_damaged", message: "\(files.path(name)) holds no head of a ledger")
        }
        return head
    }

    /// Letters, digits, `_` and `-`, by the form of a head.
    private static func name(of population: String) -> String { "ledger-head.\(population).json" }
}
