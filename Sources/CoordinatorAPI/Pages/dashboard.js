// Joins connection, state and views.
const find = id => document.getElementById(id);
const main = find("main");
const state = { overview: null, run: null, unknown: null, rounds: [], detail: {}, at: 0 };
let view = null;

function show(next) {
    view = next;
    main.replaceChildren(next.element);
}

function announce(text) {
    find("announcements").textContent = "";
    setTimeout(() => { find("announcements").textContent = text; }, 50);
}

// MARK: reading

const wanted = () => {
    const match = location.hash.match(/^#\/runs\/(.+)$/);
    return match ? decodeURIComponent(match[1]) : null;
};

/** Reads what the page shows; rounds that are final are read once. */
async function look(first) {
    const overview = await call("GET", "/v1/overview");
    serverClock.set(overview.now);
    state.overview = overview;
    state.at = Date.now();
    const id = wanted();
    const fallback = overview.runs.findLast(run => run.state === "running") ?? overview.runs.findLast(run => run.state === "paused") ?? overview.runs.at(-1) ?? null;
    const run = id ? overview.runs.find(item => item.id === id) ?? null : fallback;
    state.unknown = id && !run ? id : null;
    if (run?.id !== state.run?.id) Object.assign(state, { rounds: [], detail: {} });
    state.run = run;
    if (run) await readRun(run, first);
    if (!(view instanceof MainView)) {
        show(new MainView(actions));
        find("sign-out").hidden = !session.token;
    }
    view.setLost(null);
    view.set(state);
    document.title = (run ? `${run.name} ${run.committed_rounds}/${run.rounds} · ` : "") + "Martlet";
}

async function readRun(run, first) {
    const path = "/v1/runs/" + encodeURIComponent(run.id);
    if (!state.detail.specification) state.detail = { specification: (await call("GET", path)).specification, start: null };
    if (!state.detail.start) {
        const model = await call("GET", path + "/models/0").catch(() => null);
        state.detail.start = model?.metrics ? { number: 0, metrics: model.metrics } : null;
    }
    // An evaluation that is open has a negative number and a list of its own.
    state.detail.evaluation = run.round < 0 ? (await all(path + "/evaluations")).at(-1) : null;
    // Measurements of a model may come after its round: the last few are read again, and now and then all.
    const whole = first || !state.rounds.length || Date.now() - (state.readAllAt ?? 0) > 60000;
    if (whole) state.readAllAt = Date.now();
    const from = whole ? 0 : Math.max(0, run.committed_rounds - 5);
    const fresh = await all(`${path}/rounds?after=${from}`);
    const rounds = whole ? fresh : state.rounds.filter(round => round.number <= from).concat(fresh);
    state.rounds = rounds.map((round, index) => (index < rounds.length - 8 ? slim(round) : round));
}

/** What curves and table need of a round that is long over: a page that stays open for weeks holds many. */
function slim(round) {
    if (round.isSlim) return round;
    const { number, attempt, state: phase, accepted, rejected, failed, expired, bytes_up, bytes_down, seconds, epsilon, reason, metrics } = round;
    return { isSlim: true, number, attempt, state: phase, accepted, rejected, failed, expired, bytes_up, bytes_down, seconds, epsilon, reason, metrics };
}

// MARK: steering

const dialog = find("dialog");
function openDialog(name, wide, ...children) {
    dialog.className = wide ? "wide" : "";
    dialog.setAttribute("data-dialog", name);
    dialog.replaceChildren(...children);
    if (!dialog.open) dialog.showModal();
}
const closeButton = label => h("button", { type: "button", value: "close", onclick: () => dialog.close() }, label);

function explainRefusal() {
    openDialog("not-allowed", false, h("div", { class: "body" }, h("h2", { id: "dialog-title" }, t("notAllowedTitle")), h("p", {}, t("notAllowedText")), h("div", { class: "buttons" }, closeButton(t("close")))));
}

function problemText(error) {
    const list = error.errors?.length ? h("ul", {}, ...error.errors.map(item => h("li", {}, h("code", {}, item.pointer || "/"), " " + item.detail))) : null;
    return h("div", {}, error.status === 0 ? t("lostTitle") : error.message, list);
}

const actions = {
    ask(name, run) {
        if (state.overview.role === "viewer") return explainRefusal();
        const fault = h("div", { class: "error", role: "alert" });
        const go = h("button", { type: "submit", class: name === "cancel" ? "danger" : "primary" }, t(name === "cancel" ? "cancelRun" : name));
        const back = closeButton(t("back"));
        openDialog("confirm", false, h("form", {
            onsubmit: async event => {
                event.preventDefault();
                go.disabled = true;
                try {
                    await call("POST", `/v1/runs/${encodeURIComponent(run.id)}/${name}`, "{}");
                    dialog.close();
                    announce(t("done_" + name, { name: run.name }));
                    connection.urgent = true;
                    connection.wake();
                } catch (error) {
                    if (error.status === 403) return explainRefusal();
                    fault.replaceChildren(problemText(error));
                    go.disabled = false;
                }
            },
        }, h("h2", { id: "dialog-title" }, t(name + "Title", { name: run.name })), h("p", {}, t(name + "Text")), fault, h("div", { class: "buttons" }, back, go)));
        (name === "cancel" ? back : go).focus();
    },

    create() {
        if (state.overview.role === "viewer") return explainRefusal();
        const fault = h("div", { class: "error", role: "alert" });
        const text = h("textarea", { id: "run-text", spellcheck: "false", placeholder: "name: keyboard-en\npopulation: keyboards\nmodel: …" });
        const file = h("input", { type: "file", id: "run-file", accept: ".yaml,.yml,.json", onchange: async () => { if (file.files[0]) text.value = await file.files[0].text(); } });
        const start = h("input", { type: "checkbox", id: "run-start" });
        const go = h("button", { type: "submit", class: "primary" }, t("createButton"));
        openDialog("create", true, h("form", {
            onsubmit: async event => {
                event.preventDefault();
                const body = text.value.trim();
                if (!body) { fault.replaceChildren(t("createEmpty")); return text.focus(); }
                go.disabled = true;
                try {
                    const run = await call("POST", "/v1/runs", body, body.startsWith("{") ? "application/json" : "application/yaml");
                    location.hash = "#/runs/" + encodeURIComponent(run.id);
                    if (start.checked) await call("POST", `/v1/runs/${encodeURIComponent(run.id)}/start`, "{}");
                    dialog.close();
                    announce(t("done_create", { name: run.name }));
                    connection.urgent = true;
                    connection.wake();
                } catch (error) {
                    if (error.status === 403) return explainRefusal();
                    fault.replaceChildren(problemText(error));
                    go.disabled = false;
                }
            },
        }, h("h2", { id: "dialog-title" }, t("createTitle")), h("label", { for: "run-file" }, t("createFile")), file, h("label", { for: "run-text" }, t("createText")), text,
        h("label", { for: "run-start" }, start, t("createStart")), fault, h("div", { class: "buttons" }, closeButton(t("back")), go)));
        file.focus();
    },
};

// MARK: connection

function report(kind, error, seconds) {
    const line = find("connection");
    line.setAttribute("data-state", kind === "polling" ? "live" : kind);
    if (kind === "refused") {
        setText(line, "");
        const reason = error.status === 403 ? "wrongKind" : session.token || state.overview ? "expired" : null;
        session.token = "";
        return signIn(reason);
    }
    setText(line, kind === "lost" ? t("retryIn", { s: seconds }) : t(kind));
    if (kind === "lost" && view instanceof MainView) view.setLost(error, state.at);
    else if (kind === "lost" && !view) setText(main, t("lostTitle"));
}

function signIn(reason) {
    connection.stop();
    dialog.close();
    Object.assign(state, { overview: null, run: null, rounds: [], detail: {} });
    find("sign-out").hidden = true;
    document.title = "Martlet";
    show(new SignInView(reason, token => { session.token = token; begin(); }));
    view.reason = reason;
    view.focus();
}

const connection = new Connection(look, report);
function begin() {
    report("connecting");
    connection.start();
}

// MARK: the frame

const themes = ["auto", "light", "dark"];
function frame() {
    document.documentElement.lang = language === "zh" ? "zh" : "en";
    setText(find("skip"), t("skip"));
    setText(find("docs"), t("docs"));
    setText(find("sign-out"), t("signOut"));
    setText(find("language"), t("otherLanguage"));
    find("language").lang = language === "zh" ? "en" : "zh";
    const theme = document.documentElement.dataset.theme;
    setText(find("theme"), t("theme" + theme[0].toUpperCase() + theme.slice(1)));
}
find("language").addEventListener("click", () => {
    language = language === "zh" ? "en" : "zh";
    preferences.set("language", language);
    frame();
    dialog.close();
    if (view instanceof SignInView) return signIn(view.reason);
    if (!state.overview) return;
    show(new MainView(actions));
    view.set(state);
    connection.urgent = true;
    connection.wake();
    report("live");
});
find("theme").addEventListener("click", () => {
    const next = themes[(themes.indexOf(document.documentElement.dataset.theme) + 1) % themes.length];
    document.documentElement.dataset.theme = next;
    preferences.set("theme", next);
    frame();
});
find("sign-out").addEventListener("click", () => { session.token = ""; signIn(null); });
addEventListener("hashchange", () => {
    if (!state.overview) return;
    connection.urgent = true;
    connection.wake();
});
setInterval(() => { if (!document.hidden) view?.tick?.(); }, 1000);

frame();
begin();
