import ArgumentParser

/// Lower bounds on ε against a server as users run it: every release goes through its HTTP intake, its aggregation and its
/// own noise, and is read back as a published model.
///
/// A lower bound over the claim is a fault of the mechanism, and ends the audit with status 1. One under it proves nothing by
/// itself: the figures say how near the attack came.
struct AuditCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "audit",
        abstract: "Empirical lower bounds on epsilon beside what is claimed, through a running server.",
        subcommands: [ManyRunAuditCommand.self, OneRunAuditCommand.self]
    )
    /// δ of every claim.
    static let delta = 1e-5
}
