// A run's past as the page keeps it: curves that the server has thinned, and the last attempts. However long the run, and however
// long the page stays open, this is all: `GET …/curves` has a fixed number of points and `GET …/rounds?last=` of rounds.
const recentAttempts = 24;
const curvePoints = 400;
const accuracyNames = ["accuracy", "top1"];
const lossNames = ["loss", "nll", "perplexity"];
const heldOutFirst = (left, right) => (right === Word.source.heldOut) - (left === Word.source.heldOut);

class History {
    /** @param curves the server's answer, or null before it came; @param recent attempts, oldest first. */
    constructor(curves, recent) {
        this.curves = curves;
        this.recent = recent;
        this.committed = recent.filter(round => round.state === Word.roundPhase.committed);
        /** The first round that is told by `recent` and not by the curves. */
        this.from = this.committed[0]?.number ?? Infinity;
    }

    /** Points of one value of rounds, such as `seconds`. */
    curve(name) {
        const past = this.curves?.series.find(item => item.name === name && !item.source)?.points ?? [];
        return this.join(past, this.committed.map(round => [round.number, round[name]]));
    }

    /** One line for each who measured, under the first of the names that was used. */
    measured(names) {
        const series = (this.curves?.series ?? []).filter(item => item.source && names.includes(item.name));
        const sources = new Set([...series.map(item => item.source), ...this.committed.flatMap(round => Object.keys(round.metrics ?? {}))]);
        return [...sources].sort(heldOutFirst).map(source => {
            const name = names.find(name => series.some(item => item.source === source && item.name === name) || this.committed.some(round => round.metrics?.[source]?.[name] !== undefined));
            const past = series.find(item => item.source === source && item.name === name)?.points ?? [];
            return { name: source, points: this.join(past, this.committed.map(round => [round.number, round.metrics?.[source]?.[name]])) };
        }).filter(item => item.points.length);
    }

    join(past, recent) {
        return past.filter(point => point[0] < this.from).concat(recent.filter(point => point[1] !== undefined && point[1] !== null));
    }

    /** The best version by these measurements: [version, value]. */
    best(names) {
        const known = this.curves?.best.find(item => names.includes(item.name));
        const larger = names === accuracyNames;
        let best = known ? [known.version, known.value] : null;
        for (const round of this.committed) {
            const value = known ? round.metrics?.[known.source]?.[known.name] : metric(round, names);
            if (value !== undefined && (!best || (larger ? value > best[1] : value < best[1]))) best = [round.number, value];
        }
        return best;
    }

    /** A sum over all attempts; undefined where the server does not tell it. */
    total(name) {
        const through = this.curves?.through_round ?? 0;
        if (this.curves && this.curves.totals[name] === undefined) return undefined;
        return this.recent.filter(round => round.number > through).reduce((sum, round) => sum + (round[name] ?? 0), this.curves?.totals[name] ?? 0);
    }

    get medianSeconds() {
        const seconds = this.committed.map(round => round.seconds).sort((left, right) => left - right);
        return this.curves?.median_seconds ?? seconds[seconds.length >> 1];
    }
}

/** One measurement of a round's model: the operator's before the clients'. */
function metric(round, names) {
    for (const source of Object.keys(round.metrics ?? {}).sort(heldOutFirst)) for (const name of names) {
        const value = round.metrics[source][name];
        if (value !== undefined) return value;
    }
    return undefined;
}

/** Reads what the page keeps of a run, into `state`. */
async function readHistory(state, path, run) {
    state.rounds = await all(`${path}/rounds?last=${recentAttempts}`);
    // Between two readings of the curves the last attempts carry them on; a measurement of an old version shows within a minute.
    const isShort = run.committed_rounds <= recentAttempts;
    const gap = (state.curves?.through_round ?? -1) < (state.rounds[0]?.number ?? 1) - 1;
    if (!state.curves || isShort || gap || Date.now() - state.curvesAt > 60000) {
        state.curves = await call("GET", `${path}/curves?points=${curvePoints}`);
        state.curvesAt = Date.now();
    }
    state.history = new History(state.curves, state.rounds);
}
