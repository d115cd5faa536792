// How the page talks to the server: the token, one request, and the stream of events that says when to look again.
const session = {
    get token() { try { return sessionStorage.getItem("martlet.token") ?? ""; } catch { return session.kept; } },
    set token(value) {
        session.kept = value;
        try {
            if (value) sessionStorage.setItem("martlet.token", value);
            else sessionStorage.removeItem("martlet.token");
        } catch { /* kept in memory only */ }
    },
    kept: "",
};

class Refusal extends Error {
    constructor(status, problem) {
        super(problem.detail || problem.title || `HTTP ${status}`);
        this.status = status;
        this.code = problem.code ?? "";
        this.errors = problem.errors ?? [];
    }
}

function headers(extra) {
    return session.token ? { Authorization: "Bearer " + session.token, ...extra } : { ...extra };
}

/** One call; status 0 when no answer came. */
async function call(method, path, body, type) {
    let response;
    try {
        response = await fetch(path, {
            method, body, headers: headers(body === undefined ? {} : { "Content-Type": type ?? "application/json" }),
            cache: "no-store", signal: AbortSignal.timeout(20000),
        });
    } catch (error) {
        throw new Refusal(0, { detail: String(error.message ?? error) });
    }
    const text = await response.text();
    let value = {};
    try { value = text ? JSON.parse(text) : {}; } catch { /* a proxy's page */ }
    if (!response.ok) throw new Refusal(response.status, value);
    return value;
}

/** Every page of a list. */
async function all(path) {
    const items = [];
    let cursor = null;
    do {
        const page = await call("GET", path + (path.includes("?") ? "&" : "?") + "limit=10000" + (cursor ? "&cursor=" + encodeURIComponent(cursor) : ""));
        for (const item of page.items) items.push(item);
        cursor = page.next_cursor;
    } while (cursor);
    return items;
}

/** Keeps in touch: `look` reads what is shown; it is called at once, and after events, at most once a second. */
class Connection {
    constructor(look, report) {
        this.look = look;
        this.report = report;
        this.lastEvent = "";
        this.generation = 0;
        document.addEventListener("visibilitychange", () => { if (!document.hidden) this.wake(); });
    }

    start() {
        this.stop();
        this.run(this.generation);
    }

    stop() {
        this.generation += 1;
        this.abort?.abort();
        this.wakeUp?.();
    }

    /** Looks soon: an event came, or somebody pressed a button. */
    wake() { this.due = true; this.wakeUp?.(); }

    async run(generation) {
        let pause = 500;
        while (generation === this.generation) {
            try {
                await this.look(true);
                if (generation !== this.generation) return;
                pause = 500;
                await this.follow(generation);
            } catch (error) {
                if (generation !== this.generation) return;
                if (error.status === 401 || error.status === 403) return this.report("refused", error);
                this.abort?.abort();
                await this.countDown(pause, error, generation);
                pause = Math.min(5000, pause * 2);
            }
        }
    }

    async countDown(pause, error, generation) {
        const end = Date.now() + pause;
        while (Date.now() < end && generation === this.generation) {
            this.report("lost", error, Math.ceil((end - Date.now()) / 1000));
            await this.sleep(Math.min(1000, end - Date.now()));
        }
    }

    sleep(milliseconds) {
        return new Promise(resolve => {
            const timer = setTimeout(resolve, milliseconds);
            this.wakeUp = () => { clearTimeout(timer); resolve(); };
        });
    }

    /** Looks when events come; where the server has no stream, every second. Ends by throwing. */
    async follow(generation) {
        this.abort = new AbortController();
        const abort = this.abort;
        this.due = false;
        let ended = null;
        let streaming = false;
        this.read(abort.signal, () => { streaming = true; this.report("live"); }, () => this.wake())
            .then(() => { ended = new Refusal(0, { detail: "the stream ended" }); })
            .catch(error => { ended = error; })
            .finally(() => this.wakeUp?.());
        let last = Date.now();
        let settled = false;
        while (generation === this.generation) {
            if (ended && ended.status !== 404 && ended.status !== 406) throw ended;
            if (ended && streaming === false) this.report("polling");
            // After an event a second look follows, for what was still being counted at the first.
            const rest = document.hidden ? 10000 : !streaming ? 1000 : settled ? 10000 : 2000;
            if (!this.due) await this.sleep(Math.max(0, last + rest - Date.now()));
            const tooSoon = last + (document.hidden ? 5000 : 1000) - Date.now();
            if (this.due && tooSoon > 0 && !this.urgent) await this.sleep(tooSoon);
            if (generation !== this.generation) return;
            if (ended && ended.status !== 404 && ended.status !== 406) throw ended;
            if (!this.due && Date.now() < last + rest) continue;
            settled = !this.due;
            this.due = false;
            this.urgent = false;
            last = Date.now();
            await this.look(false);
        }
    }

    /** Reads server-sent events with fetch: an EventSource cannot carry a token. */
    async read(signal, opened, event) {
        const extra = { Accept: "text/event-stream" };
        if (this.lastEvent) extra["Last-Event-ID"] = this.lastEvent;
        const response = await fetch("/v1/events", { headers: headers(extra), cache: "no-store", signal });
        if (!response.ok) throw new Refusal(response.status, {});
        opened();
        const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
        let rest = "";
        for (;;) {
            // Comments come every 15 s; a stream that is silent for longer is dead.
            const silence = setTimeout(() => reader.cancel("silent"), 45000);
            const { done, value } = await reader.read().finally(() => clearTimeout(silence));
            if (done) return;
            const lines = (rest + value).split(/\r\n|\n|\r/);
            rest = lines.pop();
            if (rest.length > 1 << 20) throw new Refusal(0, { detail: "an event is too long" });
            for (const line of lines) {
                if (line.startsWith("id:")) this.lastEvent = line.slice(3).trim();
                else if (line === "") event();
            }
        }
    }
}
