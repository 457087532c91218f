/* Filters of the ledger of claims: which cards, rows and sections are shown. Without this script all are, and no form.

   A claim, .claim-entry, is a card or a row of the table inside the card of the printed numbers. Its classes say what it is:
   chapter-06 kind-empirical role-claim on0-holds on1-fails, by the number of the run, or on-holds where no run is needed.
   The choice is kept in the address: ?chapter=06&verdict=fails */
document.addEventListener("DOMContentLoaded", () => {
    const form = document.getElementById("claims-filter");
    if (!form) return;

    const all = (selector, within = document) => [...within.querySelectorAll(selector)];
    const shown = (nodes) => nodes.some((node) => !node.hidden);
    const entries = all(".claim-entry");
    const cards = all(".claim");
    const sections = [...new Set(cards.map((card) => card.closest("section")))];
    const contents = all(".bd-sidebar-secondary a[href^='#'], .bd-toc a[href^='#']");
    const target = (link) => document.getElementById(decodeURIComponent(link.hash.slice(1)));

    function wanted(entry, { text, chapter, kind, role, verdict, run }) {
        const is = (name) => entry.classList.contains(name);
        const verdictIs = new RegExp(`^on(${run || "\\d+"})?-${verdict}$`);
        return (
            (!chapter || is(`chapter-${chapter}`)) &&
            (!kind || is(`kind-${kind}`)) &&
            (!role || is(`role-${role}`)) &&
            (!verdict || [...entry.classList].some((name) => verdictIs.test(name))) &&
            text.toLowerCase().split(/\s+/).every((word) => entry.textContent.toLowerCase().includes(word))
        );
    }

    function filter() {
        const choice = Object.fromEntries(new FormData(form));
        for (const entry of entries) entry.hidden = !wanted(entry, choice);
        for (const card of cards) {
            const inside = all(".claim-entry", card);
            if (inside.length) card.hidden = !shown(inside);
        }
        for (const section of sections) section.hidden = !shown(all(".claim", section));
        for (const row of all("#claims-table tbody tr")) {
            row.hidden = target(row.querySelector("a")).closest(".claim").hidden;
        }
        for (const link of contents) {
            const section = target(link);
            if (sections.includes(section)) link.closest("li").hidden = section.hidden;
        }
        const left = entries.filter((entry) => !entry.hidden).length;
        form.querySelector("output").textContent = `${left} of ${entries.length} claims`;
    }

    function remember() {
        const address = new URL(location);
        address.search = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
        history.replaceState(null, "", address);
    }

    function recall() {
        for (const [name, value] of new URLSearchParams(location.search)) {
            const field = form.elements[name];
            if (field && (field.type === "search" || all("option", field).some((option) => option.value === value))) {
                field.value = value;
            }
        }
    }

    /* A link to a claim that is filtered away shows everything again. */
    function reveal() {
        const claim = location.hash && target(location);
        if (claim && claim.closest("[hidden]")) {
            form.reset();
            claim.scrollIntoView();
        }
    }

    form.addEventListener("input", () => { filter(); remember(); });
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => {
        form.querySelectorAll("select, input").forEach((field) => { field.value = ""; });
        filter();
        remember();
    });
    window.addEventListener("hashchange", reveal);
    recall();
    form.hidden = false;
    filter();
    reveal();
});
