// Charts, drawn by hand as SVG. Each is one focusable picture: its label says what it shows, arrow keys read values.
const svgSpace = "http://www.w3.org/2000/svg";
function svg(tag, attributes = {}, ...children) {
    const element = document.createElementNS(svgSpace, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
}

/** Round numbers that divide a range into about `wanted` parts. */
function ticks(low, high, wanted) {
    const span = high - low || 1;
    const raw = span / wanted;
    const unit = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map(factor => factor * unit).find(size => size >= raw) ?? unit;
    const result = [];
    for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) result.push(Math.abs(value) < step * 1e-9 ? 0 : value);
    return result;
}

/** At most four points a pixel column: first, lowest, highest, last. */
function thin(points, columns) {
    if (points.length <= columns * 2) return points;
    const result = [];
    const size = points.length / columns;
    for (let column = 0; column < columns; column += 1) {
        const part = points.slice(Math.floor(column * size), Math.floor((column + 1) * size));
        if (!part.length) continue;
        const low = part.reduce((best, point) => (point[1] < best[1] ? point : best));
        const high = part.reduce((best, point) => (point[1] > best[1] ? point : best));
        const kept = new Set([part[0], low, high, part[part.length - 1]]);
        result.push(...part.filter(point => kept.has(point)));
    }
    return result;
}

class Chart {
    constructor({ tone, title, format, value, empty }) {
        this.title = title;
        this.format = format;
        this.value = value ?? format;
        this.emptyText = empty;
        this.series = [];
        this.heading = h("h3", {}, title);
        this.readout = h("output", { class: "readout" });
        this.picture = svg("svg", { role: "img", tabindex: "0", focusable: "true" });
        this.hint = h("div", { class: "empty" }, empty);
        this.element = h("section", { class: "card chart", "data-tone": tone }, h("div", { class: "row" }, this.heading, this.readout), this.hint, this.picture);
        this.picture.addEventListener("pointermove", event => this.point(event));
        this.picture.addEventListener("pointerleave", () => this.select(null));
        this.picture.addEventListener("blur", () => this.select(null));
        this.picture.addEventListener("keydown", event => this.key(event));
        this.width = 0;
        new ResizeObserver(entries => {
            const width = Math.round(entries[0].contentRect.width);
            if (width && width !== this.width) { this.width = width; this.draw(); }
        }).observe(this.picture);
    }

    /** @param series {name, points: [[x, y]]}; `limit` is a line that must not be crossed. */
    set(series, { limit = null, limitText = "", zero = false, best = null } = {}) {
        const print = JSON.stringify([series.map(item => [item.name, item.points.length, item.points.at(-1), item.points.reduce((sum, point) => sum + point[1], 0)]), limit, best, language]);
        if (print === this.print) return;
        this.print = print;
        this.series = series.filter(item => item.points.length);
        this.limit = limit;
        this.best = best;
        this.limitText = limitText;
        this.zero = zero;
        this.draw();
    }

    draw() {
        const points = this.series[0]?.points ?? [];
        this.hint.hidden = points.length > 0;
        this.picture.toggleAttribute("hidden", points.length === 0);
        if (!points.length) { this.readout.textContent = ""; return; }
        const [first, last] = [points[0], points[points.length - 1]];
        this.picture.setAttribute("aria-label", t("chartLabel", { title: this.title, first: this.value(first[1]), from: first[0], last: this.value(last[1]), to: last[0] }) + (this.best ? " " + t("chartBest", { value: this.value(this.best[1]), n: this.best[0] }) : ""));
        this.select(null);
        const width = this.width || 400;
        const height = 184;
        this.box = { left: 46, right: width - 12, top: 10, bottom: height - 24 };
        let [low, high, from, to] = [Infinity, -Infinity, Infinity, -Infinity];
        for (const item of this.series) {
            for (const [x, y] of item.points) {
                low = Math.min(low, y); high = Math.max(high, y); from = Math.min(from, x); to = Math.max(to, x);
            }
        }
        if (this.limit !== null) high = Math.max(high, this.limit);
        if (this.zero) low = Math.min(0, low);
        const margin = (high - low || Math.abs(high) || 1) * 0.06;
        this.range = { low: this.zero && low === 0 ? 0 : low - margin, high: high + margin, from, to: to === from ? from + 1 : to };
        const marks = [];
        for (const value of ticks(this.range.low, this.range.high, 4)) {
            const y = this.y(value);
            marks.push(svg("line", { class: "grid", x1: this.box.left, x2: this.box.right, y1: y, y2: y }));
            marks.push(svg("text", { x: this.box.left - 6, y: y + 4, "text-anchor": "end" }, this.format(value)));
        }
        for (const value of ticks(from, this.range.to, Math.min(6, width / 80)).filter(Number.isInteger)) {
            marks.push(svg("text", { x: this.x(value), y: height - 6, "text-anchor": "middle" }, String(value)));
        }
        marks.push(svg("line", { class: "axis", x1: this.box.left, x2: this.box.right, y1: this.box.bottom, y2: this.box.bottom }));
        if (this.limit !== null) {
            const y = this.y(this.limit);
            marks.push(svg("line", { class: "limit", x1: this.box.left, x2: this.box.right, y1: y, y2: y }));
            marks.push(svg("text", { class: "limit-text", x: this.box.right, y: y + 14, "text-anchor": "end" }, this.limitText));
        }
        this.series.forEach((item, index) => {
            const path = thin(item.points, width).map(([x, y], place) => (place ? "L" : "M") + this.x(x).toFixed(1) + " " + this.y(y).toFixed(1)).join("");
            if (!index && item.points.length > 1) {
                marks.push(svg("path", { class: "area", d: `${path}L${this.x(item.points.at(-1)[0]).toFixed(1)} ${this.box.bottom}L${this.x(item.points[0][0]).toFixed(1)} ${this.box.bottom}Z` }));
            }
            marks.push(svg("path", { class: index ? "second" : "line", d: path }));
        });
        if (this.best && this.best[0] >= from) marks.push(svg("circle", { class: "best", cx: this.x(this.best[0]), cy: this.y(this.best[1]), r: 6 }));
        marks.push(svg("circle", { cx: this.x(last[0]), cy: this.y(last[1]), r: 4 }));
        this.cursor = svg("line", { class: "cursor", y1: this.box.top, y2: this.box.bottom, visibility: "hidden" });
        this.picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
        this.picture.replaceChildren(...marks, this.cursor);
    }

    x(value) { return this.box.left + (value - this.range.from) / (this.range.to - this.range.from) * (this.box.right - this.box.left); }
    y(value) { return this.box.bottom - (value - this.range.low) / (this.range.high - this.range.low) * (this.box.bottom - this.box.top); }

    point(event) {
        if (!this.series.length) return;
        const place = event.clientX - this.picture.getBoundingClientRect().left;
        const wanted = this.range.from + (place - this.box.left) / (this.box.right - this.box.left) * (this.range.to - this.range.from);
        const points = this.series[0].points;
        let best = 0;
        for (let index = 1; index < points.length; index += 1) {
            if (Math.abs(points[index][0] - wanted) < Math.abs(points[best][0] - wanted)) best = index;
        }
        this.select(best);
    }

    key(event) {
        const length = this.series[0]?.points.length ?? 0;
        const now = this.selected ?? length - 1;
        const next = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: length - 1, Escape: null }[event.key];
        if (next === undefined || !length) return;
        event.preventDefault();
        this.select(next === null ? null : Math.max(0, Math.min(length - 1, next)));
    }

    /** Shows the values at one point, or the last ones. */
    select(index) {
        this.selected = index;
        const points = this.series[0]?.points ?? [];
        if (!points.length) return;
        const x = points[index ?? points.length - 1][0];
        const values = this.series.map(item => {
            const found = item.points.find(point => point[0] === x);
            return found && (this.series.length > 1 ? item.name + " " : "") + this.value(found[1]);
        }).filter(Boolean);
        this.readout.replaceChildren(h("b", {}, values.join(", ")), " · " + t("round", { n: x }));
        this.cursor?.setAttribute("visibility", index === null ? "hidden" : "visible");
        if (index !== null && this.cursor) {
            this.cursor.setAttribute("x1", this.x(x));
            this.cursor.setAttribute("x2", this.x(x));
        }
    }
}

/** A small line without axes, for a list. */
function sparkline(points, width = 64, height = 18) {
    if (points.length < 2) return svg("svg", { width, height, "aria-hidden": "true" });
    const values = points.map(point => point[1]);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const path = thin(points, width).map(([x, y], index) => {
        const left = (x - points[0][0]) / (points.at(-1)[0] - points[0][0]) * (width - 2) + 1;
        const top = height - 2 - (y - low) / (high - low || 1) * (height - 4);
        return (index ? "L" : "M") + left.toFixed(1) + " " + top.toFixed(1);
    }).join("");
    return svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, svg("path", { d: path, fill: "none", stroke: "currentColor", "stroke-width": "1.5" }));
}
