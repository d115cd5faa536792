/// Codes of problem documents that a program of ours decides by; the others are for programs of other people.
package enum ProblemCode: String, ClosedWord {
    case budgetExhausted = "budget_exhausted"
    case ledgerRolledBack = "ledger_rolled_back"
    case noiseStateLost = "noise_state_lost"
    case roundFull = "round_full"
    case notEligible = "not_eligible"
    case notFound = "not_found"
    case clientRevoked = "client_revoked"
    case forbidden
    case invalidDocument = "invalid_document"
    case digestMismatch = "digest_mismatch"
}
