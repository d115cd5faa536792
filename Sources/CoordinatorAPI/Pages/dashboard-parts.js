// Parts of the page: each makes its elements once and is told what to show; nothing that has the focus is made anew.
function h(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
        if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
        else if (value === true) element.setAttribute(name, "");
        else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
    }
    element.append(...children.filter(child => child !== null && child !== undefined && child !== false));
    return element;
}
function setText(element, text) { if (element.textContent !== text) element.textContent = text; }
function setAttribute(element, name, value) { if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value); }

/** Makes a container's children those of `items`, keeping the element of each key. */
function reconcile(container, items, key, make, update) {
    const known = container.parts ?? new Map();
    const next = new Map();
    let place = container.firstElementChild;
    for (const item of items) {
        // Two of one name, such as two files of one sort, are two parts.
        let name = key(item);
        while (next.has(name)) name += "+";
        let element = known.get(name);
        if (!element) element = make(item);
        next.set(name, element);
        update?.(element, item);
        if (element === place) place = place.nextElementSibling;
        else container.insertBefore(element, place);
    }
    for (const [name, element] of known) if (next.get(name) !== element) element.remove();
    container.parts = next;
}

const shapes = {
    created: "M1 1h8v8H1zM3 3v4h4V3z", running: "M2 0l8 5-8 5z", paused: "M1 0h3v10H1zM6 0h3v10H6z", completed: "M0 5l2-2 2 2 4-5 2 2-6 7z",
    cancelled: "M1 3l2-2 2 2 2-2 2 2-2 2 2 2-2 2-2-2-2 2-2-2 2-2z", failed: "M5 0l5 10H0z", abandoned: "M5 0l5 10H0z", committed: "M0 5l2-2 2 2 4-5 2 2-6 7z",
};
/** A state as word and shape, so that colour is never all there is. */
class Badge {
    constructor() {
        this.path = svg("path");
        this.text = h("span");
        this.element = h("span", { class: "badge" }, svg("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" }, this.path), this.text);
    }
    set(state) {
        setAttribute(this.element, "data-state", state);
        setAttribute(this.path, "d", shapes[state] ?? "M2 2h6v6H2z");
        setText(this.text, t(state));
    }
}

/** Shares of a whole as one bar. */
class Bar {
    constructor(kind) { this.element = h("div", { class: "bar " + kind, role: "img" }); }
    set(parts, whole, label) {
        setAttribute(this.element, "aria-label", label);
        reconcile(this.element, parts.filter(part => part.value > 0), part => part.name, part => h("i", { "data-part": part.name }), (element, part) => {
            const width = (Math.max(0, Math.min(1, part.value / (whole || 1))) * 100).toFixed(2) + "%";
            if (element.style.width !== width) element.style.width = width;
        });
    }
}

/** What the colours of a bar mean, with their numbers. */
class Keys {
    constructor() { this.element = h("ul", { class: "keys" }); }
    set(parts) {
        reconcile(this.element, parts, part => part.name, part => h("li", { class: "key", "data-part": part.name }, h("b"), " ", h("span")), (element, part) => {
            setText(element.querySelector("b"), part.text);
            setText(element.querySelector("span"), part.label);
        });
    }
}

/** The current round: who delivers, what it waits for, until when. */
class RoundNow {
    constructor() {
        this.heading = h("h2");
        this.badge = new Badge();
        this.deadline = h("span", { class: "muted small" });
        this.bar = new Bar("cohort");
        this.keys = new Keys();
        this.goal = h("span", { class: "muted small" });
        this.waiting = h("p", { class: "waiting" });
        this.element = h("section", { class: "card" },
            h("div", { class: "card-head" }, this.heading, h("span", { class: "row small" }, this.badge.element, this.deadline)),
            this.bar.element, this.keys.element, this.waiting, this.goal);
    }

    set(run, round) {
        const number = round?.number ?? 0;
        setText(this.heading, t(round?.kind === Word.roundKind.evaluation ? "evaluationNow" : "roundNow", { n: number, all: run.rounds }) + (round && round.attempt > 1 ? " · " + t("attempt", { n: round.attempt }) : ""));
        this.element.toggleAttribute("hidden", !round);
        if (!round) return;
        this.badge.set(round.state);
        this.until = ["running", "paused"].includes(run.state) && round.deadline ? Date.parse(round.deadline) : null;
        this.tick();
        // Where the claim needs that nobody learns how many were drawn, a page that is shown about does not tell.
        for (const part of [this.bar.element, this.keys.element, this.waiting]) part.toggleAttribute("hidden", Boolean(round.is_secret));
        if (round.is_secret) return setText(this.goal, t("cohortSecret"));
        const live = round.live ?? {};
        const working = Math.max(0, round.assigned - round.accepted - round.rejected - round.failed - round.expired);
        const open = ["selecting", "reporting"].includes(round.state);
        const uploading = open ? Math.min(working, live.uploading ?? 0) : 0;
        const training = open ? Math.min(working - uploading, (live.training ?? 0) + (live.downloading ?? 0)) : 0;
        const parts = [
            { name: "accepted", value: round.accepted, label: t("accepted") }, { name: "uploading", value: uploading, label: t("uploading") },
            { name: "training", value: training, label: t("training") },
            { name: "assigned", value: open ? working - uploading - training : 0, label: t("assigned") },
            { name: "rejected", value: round.rejected, label: t("rejected") }, { name: "failed", value: round.failed, label: t("failedCount") },
            { name: "expired", value: round.expired, label: t("expired") },
        ];
        const whole = Math.max(round.goal, parts.reduce((sum, part) => sum + part.value, 0));
        this.bar.set(parts, whole, t("cohortLabel", { n: number, accepted: round.accepted, goal: round.goal, working: open ? working : 0, rejected: round.rejected, failed: round.failed, expired: round.expired }));
        this.keys.set(parts.map(part => ({ ...part, text: count(part.value) })));
        const tiers = (round.tiers ?? []).map(tier => `${count(tier.accepted)}/${count(tier.assigned)}`).join(", ");
        setText(this.goal, t("goal", { goal: count(round.goal), minimum: count(round.minimum) }) + (tiers ? " · " + t("tiers", { list: tiers }) : ""));
        // The open round's own words were read with its counts; the run's a moment before.
        const isOver = ["committed", "abandoned"].includes(round.state);
        setText(this.waiting, t("waits", { what: sentence((isOver ? null : round.waiting_for) ?? run.waiting_for) }));
    }

    tick() {
        if (!this.until) return setText(this.deadline, "");
        const left = (this.until - serverClock.now()) / 1000;
        setText(this.deadline, left > 0 ? t("deadlineIn", { s: duration(left) }) : t("deadlinePassed"));
    }
}

/** The server's time, by the last answer: deadlines are judged by it and not by this machine's clock. */
const serverClock = { offset: 0, set(text) { this.offset = Date.parse(text) - Date.now(); }, now() { return Date.now() + this.offset; } };

/** What is proven of everything that was released, with what it rests on. */
function claimText(claim) {
    const terms = t("claim", { cost: number(claim.epsilon, 2), delta: power(claim.delta), relation: claim.relations.join(", "), how: t("amplification_" + claim.amplification), by: claim.accountant });
    const who = claim.assumptions.includes("no_client_colludes") ? "againstReaders" : claim.assumptions.length ? "againstClients" : "againstServer";
    return [terms, t(who), ...claim.assumptions.map(name => t("assumes_" + name))].join(" ");
}

/** A population's budget as a gauge. */
class BudgetGauge {
    constructor() {
        this.name = h("h3");
        this.numbers = h("span", { class: "small" });
        this.bar = new Bar("gauge");
        this.keys = new Keys();
        this.fits = h("ul", { class: "keys" });
        this.claim = h("p", { class: "muted small" });
        this.element = h("div", { class: "counts" }, h("div", { class: "row" }, this.name, this.numbers), this.bar.element, this.keys.element, this.claim, this.fits);
    }

    set(population, runs) {
        const budget = population.budget;
        setText(this.name, population.name);
        this.bar.element.toggleAttribute("hidden", !budget);
        this.keys.element.toggleAttribute("hidden", !budget);
        this.claim.toggleAttribute("hidden", !budget?.claim);
        if (!budget) {
            setText(this.numbers, t("noBudget"));
            reconcile(this.fits, [], String, () => null);
            return;
        }
        setText(this.numbers, `ε ${number(budget.epsilon, 2)}, δ ${power(budget.delta)}`);
        const values = { name: population.name, spent: share(budget.spent_epsilon), reserved: share(budget.reserved_epsilon), left: share(budget.remaining_epsilon), limit: number(budget.epsilon, 2) };
        this.bar.set([{ name: "spent", value: budget.spent_epsilon }, { name: "reserved", value: budget.reserved_epsilon }], budget.epsilon, t("gaugeLabel", values));
        this.keys.set(["spent", "reserved", "left"].map(name => ({ name, text: values[name], label: t(name) })));
        setText(this.claim, budget.claim ? claimText(budget.claim) : "");
        const rows = Object.entries(budget.rounds_that_fit ?? {}).map(([id, n]) => ({ id, n, run: runs.find(run => run.id === id)?.name ?? id })).slice(0, 12);
        reconcile(this.fits, rows, row => row.id, () => h("li", { class: "muted" }), (element, row) => {
            setText(element, row.n === null ? t("fitsUnbounded", row) : t("fits", { n: count(row.n), run: row.run }));
        });
    }
}

/** Clients by state and by tier. */
class ClientCounts {
    constructor() {
        this.total = h("span", { class: "muted small" });
        this.states = h("div", { class: "counts" });
        this.tierTitle = h("h3", {});
        this.tiers = h("div", { class: "counts" });
        this.element = h("section", { class: "card" }, h("div", { class: "card-head" }, this.heading = h("h2"), this.total), this.states, this.tierTitle, this.tiers);
    }

    set(clients) {
        setText(this.heading, `${t("clients")}: ${count(clients.total)}`);
        setText(this.total, clients.total ? t("working", { n: count(clients.working) }) : t("noClients"));
        const order = ["enrolled", "active", "offline", "registered", "quarantined", "revoked"];
        const rank = name => (order.indexOf(name) + order.length + 1) % (order.length + 1);
        this.fill(this.states, Object.entries(clients.by_state).sort((left, right) => rank(left[0]) - rank(right[0])), clients.total, name => t(name));
        const tiers = Object.entries(clients.by_tier ?? {}).sort((left, right) => left[0].localeCompare(right[0], "en", { numeric: true }));
        this.tierTitle.toggleAttribute("hidden", !tiers.length);
        setText(this.tierTitle, t("byTier"));
        this.fill(this.tiers, tiers.slice(0, 12), clients.total, name => name);
    }

    fill(container, entries, whole, label) {
        reconcile(container, entries, entry => entry[0], () => {
            const bar = new Bar("");
            const element = h("div", {}, h("div", { class: "row small" }, h("span"), h("span")), bar.element);
            element.bar = bar;
            return element;
        }, (element, [name, value]) => {
            const [left, right] = element.querySelectorAll(".row span");
            setText(left, label(name));
            setText(right, count(value));
            element.bar.set([{ name: "share", value }], whole, `${label(name)}: ${count(value)}`);
        });
    }
}
