/// Where a session of a helper stands.
package enum HelperSessionState: String, ClosedWord {
    /// Its key is on the helper's disk and no seed was opened.
    case granted
    /// Its sum was made and is kept; its key is erased.
    case summed
    /// Its sum was made and is not kept any more; the charge stays.
    case acknowledged
    /// The server gave it up before a sum; the charge was given back.
    case cancelled
    /// It ended by the helper's clock, or with a restored directory, before a sum.
    case expired

    /// Whether another attempt of the same round has to wait.
    package var isOpen: Bool { self == .granted || self == .summed }
}

/// What a session sums.
package enum HelperPurpose: String, ClosedWord {
    case training, evaluation, histogram
    case prefixCounts = "prefix_counts"
}

/// What a helper's noise is drawn from.
package enum HelperNoise: String, ClosedWord {
    case none, gaussian, laplace
}

/// The norm in which a contribution is bounded.
package enum HelperMeasure: String, ClosedWord {
    case l1, l2
}

/// What a helper refuses for reasons of its own; other codes are those of every server.
package enum HelperCode: String, ClosedWord {
    case sessionUnknown = "session_unknown"
    case sessionSpent = "session_spent"
    case sessionExpired = "session_expired"
    case budgetExhausted = "budget_exhausted"
    case policyRefused = "policy_refused"
    case attemptConflict = "attempt_conflict"
    case ledgerRolledBack = "ledger_rolled_back"
    case ledgerRecordUnwritable = "ledger_record_unwritable"
    case listsFull = "lists_full"
    case domainExists = "domain_exists"
    case notFound = "not_found"
    case reasonRequired = "reason_required"
}
