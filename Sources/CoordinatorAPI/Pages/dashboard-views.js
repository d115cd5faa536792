// The page's states: signing in, everything at a glance with one run in detail, and what has gone wrong.
class SignInView {
    /** @param reason `expired`, `wrongKind`, or nothing at the first visit. */
    constructor(reason, submit) {
        this.input = h("input", { type: "password", id: "token", autocomplete: "off", required: true, spellcheck: "false", "aria-describedby": "token-help" });
        const title = { expired: t("expiredTitle"), wrongKind: t("wrongKindTitle") }[reason] ?? t("signInTitle");
        const text = { expired: t("expiredText"), wrongKind: t("wrongKindText") }[reason];
        this.element = h("div", { class: "lone", "data-view": "sign-in", "data-reason": reason ?? "first" }, h("section", { class: "card" },
            h("h1", {}, title), text && h("p", { class: "error", role: "alert" }, text),
            h("form", { onsubmit: event => { event.preventDefault(); submit(this.input.value.trim()); } },
                h("label", { for: "token" }, t("tokenLabel")), this.input, h("p", { class: "muted small", id: "token-help" }, t("tokenHelp")),
                h("div", { class: "buttons" }, h("button", { class: "primary" }, t("signInButton"))))));
    }
    focus() { this.input.focus(); }
}

/** What stands there until the server has answered for the first time. */
class WaitingView {
    constructor(problem) {
        const isStarting = problem.status === 503;
        this.status = problem.status;
        this.element = h("div", { class: "lone", "data-view": isStarting ? "starting" : "unreachable" }, h("section", { class: "card", role: "alert" },
            h("h1", {}, t(isStarting ? "startingTitle" : "lostTitle")), h("p", {}, t(isStarting ? "startingText" : "unreachableText"))));
    }
}

/** The right-hand side when a run is shown. */
class RunView {
    constructor(actions) {
        this.name = h("h1", { tabindex: "-1" });
        this.badge = new Badge();
        this.identifier = h("code", { class: "muted" });
        this.reason = h("p", { class: "muted small" });
        this.terms = h("ul", { class: "terms", "aria-label": t("specification") });
        this.buttons = h("div", { class: "actions", role: "group", "aria-label": t("runs") });
        this.actions = actions;
        this.now = new RoundNow();
        this.figures = h("dl", { class: "figures" });
        this.phases = new Keys();
        const small = value => number(value, 2);
        this.charts = {
            accuracy: new Chart({ tone: "accuracy", title: t("accuracy"), format: value => number(value), value: measured, empty: t("noMetrics") }),
            loss: new Chart({ tone: "loss", title: t("loss"), format: value => number(value), value: measured, empty: t("noMetrics") }),
            epsilon: new Chart({ tone: "epsilon", title: t("epsilon"), format: small, value: measured, empty: t("noPrivacy") }),
            bytes: new Chart({ tone: "bytes", title: t("bytes"), format: byteSize, empty: t("noRounds") }),
            seconds: new Chart({ tone: "seconds", title: t("seconds"), format: small, empty: t("noRounds") }),
        };
        this.words = new WordsCard();
        this.phaseCard = h("section", { class: "card" }, h("h2", {}, t("phases")), this.phaseBar = h("div", { class: "counts" }));
        this.table = new RoundTable(before => all(`${runPath(this.run)}/rounds?before=${before}&last=100`));
        this.specification = h("pre", { tabindex: "0", role: "region", "aria-label": t("specification") }, this.specificationCode = h("code"));
        this.element = h("div", { class: "detail", "data-view": "run" },
            h("div", { class: "title" }, this.name, this.badge.element, this.identifier, this.buttons, this.terms, this.reason), this.now.element, this.figures,
            h("div", { class: "charts" }, this.words.element, ...Object.values(this.charts).map(chart => chart.element), this.phaseCard),
            h("section", { class: "card" }, this.table.element, h("details", {}, h("summary", {}, t("specification")), this.specification)));
    }

    set(run, { rounds, history, detail }, population, role) {
        setText(this.name, run.name);
        this.badge.set(run.state);
        setText(this.identifier, run.id);
        setText(this.reason, run.reason ? sentence(run.reason) : "");
        this.reason.toggleAttribute("hidden", !run.reason);
        const possible = { created: ["start", "cancel"], running: ["pause", "cancel"], paused: ["resume", "cancel"] }[run.state] ?? [];
        reconcile(this.buttons, possible, name => name, name => h("button", { type: "button", "data-action": name, class: name === "cancel" ? "danger" : name === "pause" ? "" : "primary", onclick: () => this.actions.ask(name, this.run) }), (button, name) => {
            setText(button, t(name === "cancel" ? "cancelRun" : name));
            if (role === Word.role.viewer) setAttribute(button, "aria-disabled", "true"); else button.removeAttribute("aria-disabled");
        });
        this.run = run;
        this.now.set(run, detail.evaluation ?? rounds.at(-1));
        const accuracy = history.measured(accuracyNames);
        const loss = history.measured(lossNames);
        const budget = population?.budget;
        const isAnalytics = detail.specification?.kind === Word.runKind.analytics;
        this.words.element.hidden = !isAnalytics;
        for (const name of ["accuracy", "loss"]) this.charts[name].element.hidden = isAnalytics;
        if (isAnalytics) this.words.set(detail.words);
        this.charts.accuracy.set(accuracy, { best: history.best(accuracyNames) });
        this.charts.loss.set(loss, { best: history.best(lossNames) });
        const costs = history.curve("epsilon");
        this.charts.epsilon.set([{ name: "ε", points: costs }], { limit: budget && costs.length ? budget.epsilon : null, limitText: t("budgetLimit", { limit: number(budget?.epsilon, 2) }), zero: true });
        this.charts.bytes.set([{ name: t("up"), points: history.curve("bytes_up") }, { name: t("down"), points: history.curve("bytes_down") }], { zero: true });
        this.charts.seconds.set([{ name: "", points: history.curve("seconds") }], { zero: true });
        this.setPhases(history.committed);
        this.setFigures(run, history, accuracy, loss, budget, isAnalytics);
        this.table.set(rounds, run.best_version);
        if (detail.specification) {
            const list = terms(detail.specification, detail.norm).map((text, index) => ({ text, index }));
            reconcile(this.terms, list, item => item.index, () => h("li"), (element, item) => setText(element, item.text));
        }
        if (detail.specification && this.shown !== detail.specification) {
            this.shown = detail.specification;
            this.specificationCode.textContent = JSON.stringify(detail.specification, null, 2);
        }
    }

    setFigures(run, history, accuracy, loss, budget, isAnalytics) {
        const last = curve => curve[0]?.points.at(-1)?.[1];
        const best = found => (found ? t("best", { value: measured(found[1]), n: found[0] }) : "");
        const seconds = history.medianSeconds;
        const rows = [
            ["figureRounds", count(run.committed_rounds), t("ofRounds", { all: count(run.rounds) })],
            ...(isAnalytics ? [] : [["accuracy", measured(last(accuracy)), best(history.best(accuracyNames))], ["loss", measured(last(loss)), best(history.best(lossNames))]]),
            ["epsilon", measured(run.epsilon), budget ? t("ofBudget", { limit: number(budget.epsilon, 2), delta: power(budget.delta) }) : t("noBudget")],
            ["figureUpload", byteSize(history.total("bytes_up")), t("downTotal", { n: byteSize(history.total("bytes_down")) })],
            ["figureTime", seconds === undefined ? "–" : number(seconds, 2) + " s", t("median")],
        ];
        reconcile(this.figures, rows, row => row[0], row => h("div", {}, h("dt", {}, t(row[0])), h("dd", {}, h("span"), h("small"))), (element, row) => {
            setText(element.querySelector("span"), row[1]);
            setText(element.querySelector("small"), row[2]);
        });
    }

    /** Where the time of the last rounds went. */
    setPhases(committed) {
        const rounds = committed.slice(-5).toReversed();
        this.phaseCard.toggleAttribute("hidden", !rounds.length);
        const longest = Math.max(...rounds.map(round => round.seconds), 1e-9);
        const names = ["selecting", "reporting", "aggregating"];
        reconcile(this.phaseBar, rounds, round => round.number, () => {
            const element = h("div", {}, h("div", { class: "row small" }, h("span"), h("span", { class: "muted" })));
            element.bar = new Bar("phases");
            element.append(element.bar.element);
            return element;
        }, (element, round) => {
            const [left, right] = element.querySelectorAll(".row span");
            setText(left, t("round", { n: round.number }));
            const words = names.map(name => `${t(name)} ${number(round.phase_seconds[name] ?? 0, 2)} s`).join(", ");
            setText(right, `${number(round.seconds, 2)} s · ` + t("phaseBytes", { down: round.bytes_down === undefined ? "–" : byteSize(round.bytes_down), up: byteSize(round.bytes_up) }));
            element.bar.set(names.map(name => ({ name, value: round.phase_seconds[name] ?? 0 })), longest, words);
        });
        if (!this.phaseKeys && rounds.length) this.phaseCard.append((this.phaseKeys = new Keys()).element);
        this.phaseKeys?.set(names.map(name => ({ name, text: "", label: t(name) })));
    }
}

/** What stands on the right when no run can be shown. */
function emptyView(kind, run, create) {
    const commands = "eval \"$(martlet env --data-dir DIR)\"\nmartlet population create keyboards --epsilon 8\nmartlet population token keyboards\nmartlet run create Examples/keyboard/run.yaml --start\nmartlet client --enrollment-token TOKEN --data messages.txt --state-dir ~/.martlet";
    if (kind === "unknown-run") {
        return h("div", { class: "detail", "data-view": kind }, h("section", { class: "card counts" }, h("h1", { tabindex: "-1" }, t("unknownRunTitle")), h("p", {}, t("unknownRunText", { run })), h("p", {}, h("a", { href: "#/" }, t("backToRuns")))));
    }
    return h("div", { class: "detail", "data-view": kind }, h("section", { class: "card counts" }, h("h1", { tabindex: "-1" }, t("noRuns")), h("p", {}, t("noRunsText")), h("pre", { tabindex: "0", role: "region", "aria-label": t("noRuns") }, h("code", {}, commands)), h("p", {}, h("button", { type: "button", class: "primary", onclick: create }, t("newRun")))));
}

/** Everything at a glance. */
class MainView {
    constructor(actions) {
        this.actions = actions;
        this.lost = h("section", { class: "card notice", "data-kind": "lost", role: "alert", hidden: true }, this.lostTitle = h("h2"), this.lostText = h("p"));
        this.problemList = h("ul");
        this.problems = h("section", { class: "card problems", "aria-labelledby": "problems-title" }, h("h2", { id: "problems-title" }, t("problems")), this.problemList);
        this.runs = h("ul", { class: "runs" });
        this.moreRuns = h("p", { class: "muted small", hidden: "" });
        this.newRun = h("button", { type: "button", onclick: () => actions.create() }, t("newRun"));
        this.budgets = h("div", { class: "counts" });
        this.clients = new ClientCounts();
        this.events = h("ol", { class: "events", tabindex: "0", "aria-label": t("events") });
        this.server = h("div", { class: "counts small" });
        this.right = h("div", { class: "detail" });
        this.side = h("div", { class: "side" },
            h("nav", { class: "card", "aria-label": t("runs") }, h("div", { class: "card-head" }, h("h2", {}, t("runs")), this.newRun), this.runs, this.moreRuns),
            h("section", { class: "card" }, h("h2", {}, t("budget")), this.budgets), this.clients.element,
            h("section", { class: "card" }, h("h2", {}, t("events")), this.events), h("section", { class: "card" }, h("h2", {}, t("server")), this.server));
        this.element = h("div", { class: "layout", "data-view": "main" }, this.lost, this.problems, this.side, this.right);
        this.shown = null;
    }

    set(state) {
        const { overview } = state;
        if (overview.role === Word.role.viewer) setAttribute(this.newRun, "aria-disabled", "true"); else this.newRun.removeAttribute("aria-disabled");
        this.setProblems(overview.problems);
        const newest = overview.runs.toReversed();
        const more = overview.more_runs ?? 0;
        this.moreRuns.hidden = more === 0;
        setText(this.moreRuns, more ? t("moreRuns", { count: count(more) }) : "");
        reconcile(this.runs, newest, run => run.id, run => {
            const badge = new Badge();
            const bar = new Bar("");
            const link = h("a", { href: "#/runs/" + encodeURIComponent(run.id) }, h("span", { class: "name" }), badge.element, h("span", { class: "muted small" }), h("span", { class: "muted small" }), bar.element);
            const element = h("li", {}, link);
            Object.assign(element, { link, badge, bar });
            return element;
        }, (element, run) => {
            const [name, , rounds, value] = element.link.children;
            setText(name, run.name);
            element.badge.set(run.state);
            setText(rounds, t("rounds", { done: count(run.committed_rounds), all: count(run.rounds) }));
            const accuracy = metric(run, accuracyNames);
            setText(value, accuracy === undefined ? (run.epsilon ? `ε ${number(run.epsilon, 2)}` : "") : `${t("accuracy")} ${measured(accuracy)}`);
            element.bar.set([{ name: "done", value: run.committed_rounds }], run.rounds, t("rounds", { done: run.committed_rounds, all: run.rounds }));
            if (run.id === state.run?.id) element.link.setAttribute("aria-current", "page"); else element.link.removeAttribute("aria-current");
        });
        reconcile(this.budgets, overview.populations.length ? overview.populations : [null], population => population?.id ?? "", population => {
            if (!population) return h("p", { class: "muted small" }, t("noPopulations"));
            const gauge = new BudgetGauge();
            gauge.element.gauge = gauge;
            return gauge.element;
        }, (element, population) => population && element.gauge.set(population, overview.runs));
        this.clients.set(overview.clients);
        this.setEvents(overview.recent);
        const facts = [t("uptime", { time: duration((serverClock.now() - Date.parse(overview.started_at)) / 1000) }), overview.disk && t("disk", { free: byteSize(overview.disk.free_bytes), total: byteSize(overview.disk.total_bytes) }), t("version", { v: overview.version })].filter(Boolean);
        reconcile(this.server, facts.map((text, index) => ({ text, index })), fact => fact.index, () => h("p"), (element, fact) => setText(element, fact.text));
        this.setRight(state);
    }

    setProblems(problems) {
        const shown = problems.length ? problems : [{ code: "", severity: "", detail: "" }];
        this.problems.setAttribute("data-count", problems.length);
        reconcile(this.problemList, shown, problem => [problem.code, problem.run, problem.population].join(), problem => (problem.code ? h("li", {}, h("span", { class: "kind", "data-kind": problem.severity }), h("span")) : h("li", { class: "muted" }, t("allWell"))), (element, problem) => {
            if (!problem.code) return;
            setAttribute(element.firstChild, "data-kind", problem.severity);
            setText(element.firstChild, t(problem.severity));
            setText(element.lastChild, (problem.run_name ? problem.run_name + ": " : "") + sentence(problem.detail));
        });
    }

    setEvents(recent) {
        const rows = recent.length ? recent : [null];
        reconcile(this.events, rows, event => (event ? [event.at, event.run, event.round, event.attempt, event.state].join() : ""), event => {
            if (!event) return h("li", { class: "muted" }, t("noEvents"));
            const values = { run: event.run_name ?? event.run, n: Math.abs(event.round), state: t(event.state) };
            const kind = event.round < 0 ? "ev_evaluation" : event.round ? "ev_round" : "ev_run";
            return h("li", {}, h("time", { datetime: event.at }, clockTime(event.at)), h("span", {}, t(kind, values) + (event.cause ? " — " + sentence(event.cause) : "")));
        });
    }

    setRight(state) {
        const kind = state.run ? "run:" + state.run.id : state.unknown ? "unknown:" + state.unknown : "no-runs";
        if (this.shown !== kind) {
            this.shown = kind;
            this.runView = state.run ? new RunView(this.actions) : null;
            const next = this.runView?.element ?? emptyView(state.unknown ? "unknown-run" : "no-runs", state.unknown, () => this.actions.create());
            this.right.replaceWith(next);
            this.right = next;
        }
        if (!this.runView) return;
        const population = state.overview.populations.find(item => item.id === state.run.population);
        this.runView.set(state.run, state, population, state.overview.role);
    }

    /** Says that what is shown is old, or no longer. */
    setLost(problem, since) {
        this.element.setAttribute("data-stale", String(Boolean(problem)));
        this.lost.toggleAttribute("hidden", !problem);
        if (!problem) return;
        const isStarting = problem.status === 503;
        setAttribute(this.lost, "data-kind", isStarting ? "starting" : "lost");
        setText(this.lostTitle, t(isStarting ? "startingTitle" : "lostTitle"));
        setText(this.lostText, (isStarting ? t("startingText") + " " : "") + t("lostText", { time: clockTime(since) }));
    }

    tick() { this.runView?.now.tick(); }
}
