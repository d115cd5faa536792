// What a run does, in a line of words: the specification for people.

/** The terms of a specification as short texts, the most telling first. */
function terms(specification, adaptedNorm) {
    const { model, cohort, training, aggregation, privacy } = specification;
    const kind = specification.kind ?? "training";
    const list = [kind === Word.runKind.training ? model.architecture : t("kind_" + kind) + (specification.analytics?.method ? `: ${specification.analytics.method}` : "")];
    list.push(t(cohort.policy === Word.cohortPolicy.all ? "termsAll" : "termsCohort", { goal: count(cohort.goal) }));
    if (kind === Word.runKind.training) {
        list.push([training.algorithm === Word.algorithm.scaffold ? "SCAFFOLD" : training.local.proximal_mu ? "FedProx" : aggregation.mode === Word.aggregationMode.buffered ? "FedBuff" : training.submit === Word.submission.gradient ? "FedSGD" : "FedAvg"].join());
        if (aggregation.optimizer?.name && aggregation.optimizer.name !== Word.serverOptimizer.sgd) list.push(t("termsServer", { name: aggregation.optimizer.name }));
        if (aggregation.rule && aggregation.rule !== Word.rule.mean) list.push(aggregation.rule.replaceAll("_", " "));
    }
    if (training?.encoding && training.encoding !== "f32") list.push(t("termsEncoding", { name: training.encoding }));
    const sampled = specification.analytics?.method === Word.analyticsMethod.triehh ? specification.analytics : null;
    if (sampled) list.push(t("termsTrie", { cost: number(sampled.epsilon, 2), n: count(sampled.threshold) }));
    else if (privacy.mode === Word.privacyMode.none) list.push(t("termsNoPrivacy"));
    else {
        if (privacy.threshold) list.push(t("termsVotes", { n: number(privacy.threshold, 1) }));
        const plain = name => name.replaceAll("_", " ");
        const { clipping = {}, mechanism = "gaussian", target } = privacy;
        const how = [mechanism === Word.mechanism.gaussian ? null : plain(mechanism) + (privacy.band > 1 ? ` ${privacy.band}` : ""), `z = ${number(privacy.noise_multiplier, 2)}`].filter(Boolean).join(", ");
        const norm = number(clipping.norm, 2) + (clipping.policy && clipping.policy !== Word.clippingPolicy.flat ? ` (${plain(clipping.policy)})` : "");
        list.push(t("termsPrivacy", { mode: t("mode_" + privacy.mode), how, norm }));
        if (adaptedNorm !== undefined) list.push(t("termsNorm", { norm: number(adaptedNorm, 3) }));
        if (target) list.push(t("termsTarget", { cost: number(target.epsilon, 2) }));
        if (privacy.amplification && privacy.amplification !== Word.amplification.none) list.push(t("termsAmplified"));
    }
    return list;
}

/** Where the bound of updates is adapted: what it is after the newest version, once a version. */
async function readNorm(state, path, run) {
    const { detail } = state;
    if (detail.specification.privacy.clipping?.policy !== Word.clippingPolicy.adaptive || !run.committed_rounds || detail.normVersion === run.committed_rounds) return;
    detail.norm = (await call("GET", path + "/models/latest")).clipping_norm;
    detail.normVersion = run.committed_rounds;
}
