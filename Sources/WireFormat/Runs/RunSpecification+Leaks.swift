import UpdateCompression

extension RunSpecification {
    /// What would have a client of a private run tell something of its data that is neither noised nor charged.
    var leakContradictions: [Contradiction] {
        guard isPrivate else { return [] }
        var found: [Contradiction] = []
        if cohort.minExamples > 1 {
            found.add(
                "cohort",
                "min_examples over 1 would tell whether a client has that many, which nothing pays for in mode "
                    + "\(privacy.mode); a device with fewer than training.data.minimum_records sends zeros"
            )
        }
        if let text = cohort.requirements, let expression = try? EligibilityExpression(text),
            expression.usesExampleCount
        {
            found.add(
                "cohort",
                "requirements may not look at num_examples in mode \(privacy.mode): whether a client is admitted would tell "
                    + "how much data it has"
            )
        }
        if cohort.tiers > 1 || cohort.targetSeconds > 0 {
            found.add(
                "cohort",
                "\(cohort.tiers > 1 ? "tiers" : "target_seconds") counts on how long each client's training takes, which "
                    + "depends on its data: not in mode \(privacy.mode)"
            )
        }
        if !training.encoding.hasFixedLength {
            found.add(
                "training",
                "encoding \(training.encoding) makes updates of lengths that depend on data: not in mode \(privacy.mode)"
            )
        }
        return found
    }
}
