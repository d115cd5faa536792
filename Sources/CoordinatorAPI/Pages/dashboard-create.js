// Creating a run: the file is checked by the server, which says what the run would cost, before anything is stored.

/** Where a JSON pointer leads in YAML or JSON text: the key of its last part that is there, as [start, end], or null. */
function placeOf(text, pointer) {
    let place = null;
    let from = 0;
    for (const part of pointer.split("/").slice(1)) {
        const name = part.replaceAll("~1", "/").replaceAll("~0", "~").replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
        const found = new RegExp(`(^|[\\s{,])(["']?)${name}\\2\\s*:`, "m").exec(text.slice(from));
        if (!found) break;
        const start = from + found.index + found[1].length;
        from += found.index + found[0].length;
        place = [start, from];
    }
    return place;
}

/** What a dry run answered, in words and numbers. */
class PlanView {
    constructor() {
        this.bar = new Bar("gauge");
        this.element = h("section", { class: "plan", "aria-labelledby": "plan-title", hidden: true });
    }

    set(plan) {
        this.element.hidden = !plan;
        if (!plan) return;
        const { specification, privacy, cohort = specification.cohort } = plan;
        // Without earlier charges the population's total is the run's own.
        const after = privacy?.population_epsilon ?? privacy?.epsilon;
        const facts = [
            [t("planModel"), specification.model.architecture + (plan.parameter_count ? ` · ${t("planParameters", { n: count(plan.parameter_count) })}` : ` · ${t("planNoWeights")}`)],
            [t("planRounds"), t("planCohort", { rounds: count(specification.rounds), goal: count(cohort.goal), clients: count(plan.clients) })],
        ];
        if (plan.bytes_up !== undefined) facts.push([t("planTraffic"), t("phaseBytes", { down: byteSize(plan.bytes_down), up: byteSize(plan.bytes_up) })]);
        facts.push([t("epsilon"), privacy ? t("planCost", { cost: number(privacy.epsilon, 2), delta: power(privacy.delta), mechanism: [t("mode_" + privacy.mode), privacy.mechanism.replaceAll("_", " ")].join(" · ") }) : t("noPrivacy")]);
        if (privacy?.budget_epsilon) facts.push([t("budget"), t("planBudget", { after: number(after, 2), limit: number(privacy.budget_epsilon, 2), n: count(privacy.rounds_that_fit), all: count(privacy.rounds) })]);
        if (privacy?.noise_to_signal) facts.push([t("planNoise"), t("planNoiseText", { n: number(privacy.noise_to_signal, 2) })]);
        const parts = [h("h3", { id: "plan-title" }, t("planTitle")), h("dl", { class: "facts" }, ...facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]))];
        if (privacy?.budget_epsilon) {
            const limit = value => (Number.isFinite(value) ? Math.max(0, Math.min(value, privacy.budget_epsilon)) : privacy.budget_epsilon);
            const before = Number.isFinite(after) && Number.isFinite(privacy.epsilon) ? limit(after - privacy.epsilon) : 0;
            this.bar.set([{ name: "spent", value: before }, { name: "reserved", value: limit(after) - before }], privacy.budget_epsilon, facts.find(([name]) => name === t("budget"))[1]);
            parts.push(this.bar.element);
        }
        if (plan.warnings.length) parts.push(h("ul", { class: "warnings" }, ...plan.warnings.map(text => h("li", {}, sentence(text)))));
        this.element.replaceChildren(...parts);
    }
}

/** The dialog's form: check, see what would happen, create. */
class CreateForm {
    constructor(done, refused) {
        this.done = done;
        this.refused = refused;
        this.fault = h("div", { class: "error", role: "alert" });
        this.text = h("textarea", { id: "run-text", spellcheck: "false", "aria-describedby": "create-help", placeholder: "name: keyboard-en\npopulation: keyboards\nmodel: …", oninput: () => this.changed() });
        this.file = h("input", { type: "file", id: "run-file", accept: ".yaml,.yml,.json", onchange: () => this.read() });
        this.start = h("input", { type: "checkbox", id: "run-start" });
        this.plan = new PlanView();
        this.go = h("button", { type: "submit", class: "primary" });
        this.element = h("form", { onsubmit: event => { event.preventDefault(); this.submit(); } },
            h("h2", { id: "dialog-title" }, t("createTitle")), h("p", { class: "muted small", id: "create-help" }, t("createHelp")),
            h("label", { for: "run-file" }, t("createFile")), this.file, h("label", { for: "run-text" }, t("createText")), this.text,
            this.plan.element, h("label", { for: "run-start" }, this.start, t("createStart")), this.fault, h("div", { class: "buttons" }, closeButton(t("back")), this.go));
        this.changed();
    }

    get body() { return this.text.value.trim(); }

    /** What was checked is no longer what stands there. */
    changed() {
        this.checked = null;
        this.plan.set(null);
        this.fault.replaceChildren();
        setText(this.go, t("checkButton"));
    }

    async read() {
        if (!this.file.files[0]) return;
        this.text.value = await this.file.files[0].text();
        this.changed();
        if (this.body) await this.submit();
    }

    async submit() {
        const body = this.body;
        if (!body) { this.fault.replaceChildren(t("createEmpty")); return this.text.focus(); }
        this.go.disabled = true;
        try {
            if (this.checked === body) await this.create(body);
            else await this.check(body);
        } catch (error) {
            if (!this.refused(error)) this.fault.replaceChildren(this.problem(error, body));
        }
        this.go.disabled = false;
    }

    send(query, body) { return call("POST", "/v1/runs" + query, body, body.startsWith("{") ? "application/json" : "application/yaml"); }

    async check(body) {
        this.changed();
        const plan = await this.send("?dry_run=true", body);
        if (this.body !== body) return;
        this.plan.set(plan);
        this.checked = body;
        setText(this.go, t("createButton"));
        this.go.disabled = false;
        this.go.focus();
        this.plan.element.scrollIntoView({ block: "nearest" });
    }

    async create(body) {
        // Created once: when only the start was refused, a second press starts it.
        this.run ??= await this.send("", body);
        location.hash = "#/runs/" + encodeURIComponent(this.run.id);
        if (this.start.checked) await call("POST", runPath(this.run) + "/start", "{}");
        this.done(this.run);
    }

    /** The faults, each with a button that shows its place. */
    problem(error, body) {
        if (!error.errors?.length) return problemText(error);
        return h("div", {}, error.message, h("ul", {}, ...error.errors.map(item => {
            const place = placeOf(body, item.pointer ?? "");
            const name = h("code", {}, item.pointer || "/");
            return h("li", {}, place ? h("button", { type: "button", class: "link", onclick: () => this.select(place) }, name) : name, " " + item.detail);
        })));
    }

    select([start, end]) {
        this.text.focus();
        this.text.setSelectionRange(start, end);
        // Browsers do not scroll a selection into sight by themselves.
        const line = this.text.value.slice(0, start).split("\n").length;
        this.text.scrollTop = Math.max(0, (line - 4) * parseFloat(getComputedStyle(this.text).lineHeight));
    }
}
