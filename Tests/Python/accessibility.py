"""Checks of one page as assistive technology and tired eyes meet it: WCAG 2.2 AA, as far as a program can judge."""

import json

# Every text against what is painted behind it; translucent grounds are mixed. Ratios by WCAG 2.2, 1.4.3.
CONTRAST = """
(limit => {
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const known = new Map();
    const parse = color => {
        if (known.has(color)) return known.get(color);
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = '#000';
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
        known.set(color, [r, g, b, a / 255]);
        return known.get(color);
    };
    const over = (top, bottom) => [0, 1, 2].map(i => top[i] * top[3] + bottom[i] * (1 - top[3])).concat(1);
    const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const ratio = (one, two) => { const [a, b] = [luminance(one), luminance(two)].sort((x, y) => y - x); return (a + 0.05) / (b + 0.05); };
    const ground = element => {
        const layers = [];
        for (let e = element; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
        const base = getComputedStyle(document.documentElement).colorScheme.includes('dark') && matchMedia('(prefers-color-scheme: dark)').matches ? [18, 18, 18, 1] : [255, 255, 255, 1];
        return layers.reverse().reduce((below, layer) => over(layer, below), base);
    };
    const bad = [];
    let count = 0;
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode() && count < limit) {
        const node = walker.currentNode;
        const element = node.parentElement;
        if (!node.textContent.trim() || element.closest('script, style, noscript, [hidden], .visually-hidden, .quiet-text, .skip')) continue;
        if (!element.checkVisibility({visibilityProperty: true})) continue;
        count += 1;
        const style = getComputedStyle(element);
        const isDrawing = element instanceof SVGElement;
        let color = parse(isDrawing ? style.fill : style.color);
        let opacity = 1;
        for (let e = element; e; e = e.parentElement) opacity *= Number(getComputedStyle(e).opacity);
        const back = ground(element);
        color = over([...color.slice(0, 3), color[3] * opacity], back);
        const size = parseFloat(style.fontSize);
        const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
        const value = ratio(color, back);
        if (value < (large ? 3 : 4.5)) bad.push(`${value.toFixed(2)} for "${node.textContent.trim().slice(0, 40)}" (${element.className.baseVal ?? element.className})`);
    }
    return {count, bad};
})
"""

# Shapes that carry meaning against their ground (1.4.11): 3 to 1.
STRUCTURE = """
(() => {
    const problems = [];
    const shown = element => element.checkVisibility();
    const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
    for (const id of new Set(ids)) if (ids.filter(other => other === id).length > 1) problems.push('the id ' + id + ' is used twice');
    if (document.querySelectorAll('main').length !== 1) problems.push('there must be one main');
    if (!document.documentElement.lang) problems.push('the page has no language');
    if (!document.title) problems.push('the page has no title');
    const headings = [...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].filter(shown);
    for (const heading of headings) if (!heading.textContent.trim()) problems.push('an empty ' + heading.tagName);
    for (const reference of document.querySelectorAll('[aria-labelledby], [aria-describedby], label[for]')) {
        for (const name of ['aria-labelledby', 'aria-describedby', 'for']) {
            for (const id of (reference.getAttribute(name) ?? '').split(/\\s+/).filter(Boolean)) {
                if (!document.getElementById(id) && (reference.tagName !== 'DIALOG' || reference.open)) problems.push(`${name} points to ${id}, which is not there`);
            }
        }
    }
    for (const element of document.querySelectorAll('[tabindex]')) if (Number(element.getAttribute('tabindex')) > 0) problems.push('a positive tabindex');
    for (const list of document.querySelectorAll('ul, ol')) if ([...list.children].some(e => e.tagName !== 'LI')) problems.push('a list holds something else than items');
    for (const target of document.querySelectorAll('button, a[href], input, summary, textarea')) {
        if (!shown(target) || target.classList.contains('skip')) continue;
        const box = target.getBoundingClientRect();
        const inline = target.tagName === 'A' && getComputedStyle(target).display === 'inline';
        if (!inline && target.type !== 'checkbox' && (box.height < 24 || box.width < 24)) problems.push(`a target of ${box.width.toFixed()}×${box.height.toFixed()}: ${target.outerHTML.slice(0, 80)}`);
    }
    for (const cell of document.querySelectorAll('th')) if (!cell.scope) problems.push('a th without scope');
    return problems;
})()
"""

NAMED_ROLES = {
    "button", "link", "textbox", "searchbox", "checkbox", "image", "img", "dialog", "region", "navigation", "table", "group",
    "listbox", "combobox", "alertdialog", "DisclosureTriangle", "heading",
}


def check_accessibility(page, where, limit=4000):
    """Contrast, structure, and the browser's own tree of roles and names."""
    # A transition in progress shows colours that are nobody's.
    page.run("Promise.all(document.getAnimations().map(animation => animation.finished.catch(() => null)))")
    contrast = page.run(f"{CONTRAST}({limit})")
    assert contrast["count"] > 3, f"{where}: found only {contrast['count']} texts"
    assert not contrast["bad"], f"{where}: too little contrast: {json.dumps(contrast['bad'][:10], ensure_ascii=False, indent=1)}"
    problems = page.run(STRUCTURE)
    assert not problems, f"{where}: {problems[:8]}"
    nodes = page.send("Accessibility.getFullAXTree")["nodes"]
    nameless = []
    for node in nodes:
        role = node.get("role", {}).get("value")
        if node.get("ignored") or role not in NAMED_ROLES:
            continue
        if not node.get("name", {}).get("value", "").strip():
            nameless.append((role, node.get("backendDOMNodeId")))
    described = []
    for role, identifier in nameless:
        html = page.send("DOM.describeNode", backendNodeId=identifier)["node"]
        described.append((role, html.get("localName"), html.get("attributes")))
    # A section without a name is no region, and a details' group needs none.
    described = [item for item in described if not (item[0] == "group" and item[1] in ("details", "fieldset"))]
    assert not described, f"{where}: without a name: {described}"


def check_focus_order(page):
    """Tab reaches every control once, in the order in which it is read, and each shows that it has the focus."""
    page.send("Page.bringToFront")
    page.run("document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex')")
    order = []
    page.key("Tab")
    for _ in range(200):
        state = page.run(
            "(e => { const s = getComputedStyle(e); return {path: e === document.body ? null : [...document.querySelectorAll('*')].indexOf(e),"
            " text: e.outerHTML.slice(0, 70), outline: s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2}; })(document.activeElement)"
        )
        if state["path"] is None or (order and state["path"] == order[0]["path"]):
            break
        order.append(state)
        page.key("Tab")
    unmarked = [item["text"] for item in order if not item["outline"]]
    assert not unmarked, f"no visible focus: {unmarked}"
    places = [item["path"] for item in order]
    assert places == sorted(places), "the focus jumps: " + str([item["text"] for item in order])
    wanted = page.run(
        "[...document.querySelectorAll('a[href], button, input, textarea, summary, [tabindex=\"0\"]')].filter(e => e.checkVisibility() && !e.disabled)"
        ".map(e => [...document.querySelectorAll('*')].indexOf(e))"
    )
    missed = sorted(set(wanted) - set(places))
    assert not missed, "Tab does not reach: " + str([page.run(f"document.querySelectorAll('*')[{place}].outerHTML.slice(0, 90)") for place in missed])
