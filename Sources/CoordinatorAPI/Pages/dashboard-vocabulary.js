// What a run of kind analytics has found: the top of its histogram, or the words of its trie.
const shownWords = 25;

/** Reads the words of the newest version, once a version. */
async function readWords(state, path, run) {
    if (state.detail.specification.kind !== Word.runKind.analytics || !run.committed_rounds || state.detail.words?.version === run.committed_rounds) return;
    state.detail.words = await call("GET", `${path}/models/latest/words?limit=${shownWords}`).catch(error => {
        if ([401, 0, 503].includes(error.status)) throw error;
        return { version: run.committed_rounds, items: [], hidden: 0 };
    });
}

/** The most frequent words with their counts as bars. */
class WordsCard {
    constructor() {
        this.note = h("p", { class: "muted small" });
        this.list = h("ol", { class: "words" });
        this.element = h("section", { class: "card", "data-view": "words" }, h("h2", {}, t("wordsFound")), this.list, this.note);
    }

    set(words) {
        const items = words?.items ?? [];
        const most = Math.max(...items.map(item => item.count ?? 0), 1);
        reconcile(this.list, items, item => item.word, () => {
            const bar = new Bar("");
            const element = h("li", {}, h("div", { class: "row small" }, h("span", { class: "word" }), h("span")), bar.element);
            element.bar = bar;
            return element;
        }, (element, item) => {
            const [word, value] = element.querySelectorAll(".row span");
            // A space or a line's end is a word, too.
            setText(word, item.word.trim() ? item.word : JSON.stringify(item.word));
            const isCounted = item.count !== undefined && item.count !== null;
            setText(value, isCounted ? number(item.count, 1) : "");
            element.bar.element.toggleAttribute("hidden", !isCounted);
            if (isCounted) element.bar.set([{ name: "share", value: item.count }], most, `${item.word}: ${number(item.count, 1)}`);
        });
        const notes = [];
        if (!words) notes.push(t("wordsNotYet"));
        else if (["votes", "triehh"].includes(words.method)) notes.push(t("wordsTrie", { n: number(words.threshold, 1) }));
        else {
            if (words.count_error) notes.push(t("wordsError", { n: number(words.count_error, 1) }));
            if (words.hidden) notes.push(t("wordsHidden", { n: count(words.hidden), least: number(words.minimum_count, 1) }));
        }
        if (words?.next_cursor) notes.push(t("wordsMore", { n: shownWords }));
        setText(this.note, notes.join(" "));
    }
}
