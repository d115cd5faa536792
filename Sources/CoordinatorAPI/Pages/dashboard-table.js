// The rounds as a table: the last twenty, and older ones by the hundred when they are asked for.
class RoundTable {
    /** @param older reads the attempts of rounds before a number. */
    constructor(older) {
        this.older = older;
        this.kept = [];
        this.body = h("tbody");
        this.fault = h("p", { class: "error small", role: "alert" });
        this.more = h("button", { type: "button", onclick: () => this.readOlder() });
        const columns = ["tRound", "tState", "tAccepted", "tRejected", "tFailed", "tExpired", "up", "down", "tSeconds", "accuracy", "loss", "ε", "tReason"];
        this.element = h("details", {}, h("summary", {}, t("showTable")),
            h("div", { class: "table", tabindex: "0", role: "region", "aria-label": t("table") },
                h("table", {}, h("caption", { class: "visually-hidden" }, t("table")), h("thead", {}, h("tr", {}, ...columns.map(name => h("th", { scope: "col" }, t(name))))), this.body)),
            this.more, this.fault);
        this.element.addEventListener("toggle", () => {
            if (!this.element.open) this.kept = [];
            this.show();
        });
    }

    set(rounds, best) {
        // What leaves the last attempts stays in a table that somebody has unrolled.
        if (this.kept.length) this.kept = this.kept.concat((this.rounds ?? []).filter(round => round.number < (rounds[0]?.number ?? 0) && round.number > this.kept.at(-1).number)).slice(-2000);
        this.rounds = rounds;
        this.best = best;
        this.show();
    }

    async readOlder() {
        const first = this.kept[0]?.number ?? this.rounds[0]?.number;
        this.more.disabled = true;
        this.fault.replaceChildren();
        try {
            this.kept = (await this.older(first)).concat(this.kept);
        } catch (error) {
            this.fault.replaceChildren(problemText(error));
        }
        this.more.disabled = false;
        this.show();
    }

    show() {
        if (!this.element.open || !this.rounds) return;
        const rounds = this.kept.length ? this.kept.concat(this.rounds) : this.rounds.slice(-20);
        this.more.toggleAttribute("hidden", (rounds[0]?.number ?? 1) <= 1 || this.kept.length >= 2000);
        setText(this.more, t("showOlder"));
        reconcile(this.body, rounds.toReversed(), round => `${round.number}.${round.attempt}`, () => h("tr", {}, h("th", { scope: "row" }), ...Array.from({ length: 11 }, () => h("td")), h("td", { class: "text" })), (row, round) => {
            const isBest = round.state === Word.roundPhase.committed && round.number === this.best;
            row.toggleAttribute("data-best", isBest);
            const cells = [
                round.number + (round.attempt > 1 ? ` (${t("attempt", { n: round.attempt })})` : "") + (isBest ? " ★ " + t("bestVersion") : ""), t(round.state), ...[round.accepted, round.rejected, round.failed, round.expired].map(n => (round.is_secret ? "–" : count(n))),
                round.is_secret ? "–" : byteSize(round.bytes_up), round.is_secret || round.bytes_down === undefined ? "–" : byteSize(round.bytes_down), number(round.seconds, 2), measured(metric(round, accuracyNames)),
                measured(metric(round, lossNames)), number(round.epsilon, 3), sentence(round.reason),
            ];
            cells.forEach((text, index) => setText(row.children[index], text));
        });
    }
}
