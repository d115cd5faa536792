import MartletTransport
import WireFormat

/// Where a device keeps the last head that it was told of the server's privacy ledger: `ledger-head.json`.
///
/// The file is for the population that the device is registered in, which no server can change: it names one population. When
/// the device registers anew it is put aside under that population's name, and counts again when a head of that population
/// comes.
struct LedgerHeadFile: Sendable {
    let files: StateFiles

    /// The head that is kept; before there is one since the registration, that of the population from an earlier registration.
    ///
    /// - Throws: `ClientError` with code `state_damaged`, or of this device's files.
    func known(population: String?) throws -> PopulationLedgerHead? {
        if let head = try read(.ledgerHead) { return head }
        return try population.flatMap { try read(.ledgerHead(of: $0)) }
    }

    /// Keeps a head.
    func keep(_ head: PopulationLedgerHead) throws { try files.write(.ledgerHead, head) }

    /// Puts the head aside, so that another population's may come; one that cannot be read stays, and refuses all.
    func setAside() throws {
        do {
            guard let head = try read(.ledgerHead) else { return }
            try files.move(StateFile.ledgerHead.name, to: StateFile.ledgerHead(of: head.population).name)
        } catch let error as ClientError where error.isStateDamaged {}
    }

    private func read(_ file: StateFile<PopulationLedgerHead>) throws -> PopulationLedgerHead? {
        guard let head = try files.read(file) else { return nil }
        guard head.isWellFormed else {
            throw ClientError(code: "state_damaged", message: "\(files.path(file.name)) holds no head of a ledger")
        }
        return head
    }
}
