extension RunSpecification.Training {
    /// Whether clients keep control variates and send what changed in them: SCAFFOLD.
    package var usesControlVariates: Bool { algorithm == "scaffold" }

    /// What one algorithm asks that another cannot give, named by field.
    func refuseWhatDoesNotGoTogether(_ fields: FieldReader, privacyMode: String) {
        if submit == "weights" && privacyMode != "none" {
            fields.report(
                "submit",
                "weights cannot be clipped in mode \(privacyMode): the bound is on what a client changes; submit delta"
            )
        }
        if submit == "gradient" {
            if (local.proximalMu ?? 0) > 0 {
                fields.report("submit", "gradient is taken at the global model, where local.proximal_mu has no effect")
            }
            if local.optimizer != "sgd" {
                fields.report(
                    "submit",
                    "gradient takes no local step; local.optimizer \(local.optimizer) has no effect"
                )
            }
        }
        if encoding == "topk" {
            if submit == "weights" || usesControlVariates {
                fields.report(
                    "encoding",
                    "topk sends the largest changes: it goes with submit delta or gradient, without scaffold"
                )
            }
            if privacyMode == "local" {
                fields.report("encoding", "topk would send noise: in mode local every value is mostly noise")
            }
        }
        guard usesControlVariates else { return }
        if submit != "delta" {
            fields.report("algorithm", "scaffold corrects local steps and submits their delta, not \(submit)")
        }
        if local.optimizer != "sgd" {
            fields.report(
                "algorithm",
                "scaffold reads the mean gradient off the local steps, which is possible with local.optimizer sgd only"
            )
        }
        if privacyMode == "distributed" {
            fields.report("algorithm", "scaffold is not offered with privacy mode distributed; use central or local")
        }
    }
}
