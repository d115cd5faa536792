"use strict";
const status = document.getElementById("status");
function say(text) {
    status.textContent = text;
    clearTimeout(say.timer);
    say.timer = setTimeout(() => { status.textContent = ""; }, 2000);
}
for (const button of document.querySelectorAll(".copy")) {
    const article = button.closest("article");
    button.setAttribute("aria-label", "Copy the curl line of " + article.querySelector("h3").textContent.trim());
    button.addEventListener("click", async () => {
        const code = article.querySelector("code.curl");
        try {
            await navigator.clipboard.writeText(code.textContent);
            say("Copied");
        } catch {
            // Without a secure context there is no clipboard: select the text instead.
            getSelection().selectAllChildren(code);
            say("Selected: press Ctrl+C");
        }
    });
}
document.getElementById("filter").addEventListener("input", event => {
    const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const article of document.querySelectorAll("article")) {
        const text = article.textContent.toLowerCase();
        article.hidden = !words.every(word => text.includes(word));
        count += article.hidden ? 0 : 1;
        const entry = document.querySelector(`nav a[href="#${article.id}"]`);
        if (entry) entry.parentElement.hidden = article.hidden;
    }
    for (const section of document.querySelectorAll("section")) {
        section.hidden = !section.querySelector("article:not([hidden])");
    }
    say(words.length ? `${count} calls` : "");
});
