// Joins connection, state and views.
const find = id => document.getElementById(id);
const main = find("main");
const nothingRead = () => ({ rounds: [], detail: {}, curves: null, curvesAt: 0, history: null });
const state = { overview: null, run: null, unknown: null, at: 0, ...nothingRead() };
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

/** Reads what the page shows. */
async function look() {
    const overview = await call("GET", "/v1/overview");
    serverClock.set(overview.now);
    state.overview = overview;
    state.at = Date.now();
    const id = wanted();
    const fallback = overview.runs.findLast(run => run.state === Word.runPhase.running) ?? overview.runs.findLast(run => run.state === Word.runPhase.paused) ?? overview.runs.at(-1) ?? null;
    const run = id ? overview.runs.find(item => item.id === id) ?? null : fallback;
    state.unknown = id && !run ? id : null;
    if (run?.id !== state.run?.id) Object.assign(state, nothingRead());
    state.run = run;
    if (run) await readRun(run);
    if (!(view instanceof MainView)) {
        show(new MainView(actions));
        find("sign-out").hidden = !session.token;
    }
    view.setLost(null);
    view.set(state);
    document.title = (run ? `${run.name} ${run.committed_rounds}/${run.rounds} · ` : "") + "Martlet";
}

const runPath = run => "/v1/runs/" + encodeURIComponent(run.id);

async function readRun(run) {
    const path = runPath(run);
    state.detail.specification ??= (await call("GET", path)).specification;
    // An evaluation that is open has a list of its own.
    state.detail.evaluation = run.round_kind === Word.roundKind.evaluation ? (await all(path + "/evaluations?last=1"))[0] : null;
    await readWords(state, path, run);
    await readNorm(state, path, run);
    await readHistory(state, path, run);
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

/** A token that may not do this, or nothing any more, has an answer of its own. */
function refused(error) {
    if (error.status === 401) report("refused", error);
    if (error.status === 403) explainRefusal();
    return error.status === 401 || error.status === 403;
}

function problemText(error) {
    const list = error.errors?.length ? h("ul", {}, ...error.errors.map(item => h("li", {}, h("code", {}, item.pointer || "/"), " " + item.detail))) : null;
    return h("div", {}, error.status === 0 ? t("lostTitle") : error.message, list);
}

const actions = {
    ask(name, run) {
        if (state.overview.role === Word.role.viewer) return explainRefusal();
        const fault = h("div", { class: "error", role: "alert" });
        const go = h("button", { type: "submit", class: name === "cancel" ? "danger" : "primary" }, t(name === "cancel" ? "cancelRun" : name));
        const back = closeButton(t("back"));
        openDialog("confirm", false, h("form", {
            onsubmit: async event => {
                event.preventDefault();
                go.disabled = true;
                try {
                    await call("POST", `${runPath(run)}/${name}`, "{}");
                    dialog.close();
                    announce(t("done_" + name, { name: run.name }));
                    connection.urgent = true;
                    connection.wake();
                } catch (error) {
                    if (refused(error)) return;
                    fault.replaceChildren(problemText(error));
                    go.disabled = false;
                }
            },
        }, h("h2", { id: "dialog-title" }, t(name + "Title", { name: run.name })), h("p", {}, t(name + "Text")), fault, h("div", { class: "buttons" }, back, go)));
        (name === "cancel" ? back : go).focus();
    },

    create() {
        if (state.overview.role === Word.role.viewer) return explainRefusal();
        const form = new CreateForm(run => {
            dialog.close();
            announce(t("done_create", { name: run.name }));
            connection.urgent = true;
            connection.wake();
        }, refused);
        openDialog("create", true, form.element);
        form.file.focus();
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
    if (kind !== "lost") return;
    if (view instanceof MainView) view.setLost(error, state.at);
    else if (!(view instanceof SignInView) && view?.status !== error.status) show(new WaitingView(error));
}

function signIn(reason) {
    connection.stop();
    dialog.close();
    Object.assign(state, { overview: null, run: null, ...nothingRead() });
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
    document.documentElement.lang = isChinese() ? chinese : "en";
    setText(find("skip"), t("skip"));
    setText(find("docs"), t("docs"));
    setText(find("sign-out"), t("signOut"));
    setText(find("language"), t("otherLanguage"));
    find("language").lang = isChinese() ? "en" : chinese;
    const theme = document.documentElement.dataset.theme;
    setText(find("theme"), t("theme" + theme[0].toUpperCase() + theme.slice(1)));
}
find("language").addEventListener("click", () => {
    language = isChinese() ? "en" : chinese;
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
