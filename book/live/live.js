/* Cells that run in the page. Without this script, or without WebAssembly, the page reads as it is printed.

   The data block #live-cells has every cell's source, what the book prints for it, and what it needs beyond SymPy. A cell that
   runs starts from what the cells before it have left; those that have not run yet run first. */
document.addEventListener("DOMContentLoaded", () => {
    const block = document.getElementById("live-cells");
    if (!block || typeof WebAssembly !== "object" || typeof Worker !== "function") return;

    const chapter = JSON.parse(block.textContent);
    const here = document.currentScript ? document.currentScript.src : document.querySelector("script[src$='live/live.js']").src;
    const served = location.protocol !== "file:";
    const cells = chapter.cells.map((cell, place) => ({ ...cell, place, fresh: false, ran: null }));
    const live = cells.filter((cell) => !cell.needs);
    let python = null; // the worker and what it is asked for
    let queue = Promise.resolve();
    let turn = 0; // Stop ends it, with all that is waiting

    function node(name, properties = {}, ...children) {
        const made = Object.assign(document.createElement(name), properties);
        made.append(...children);
        return made;
    }

    // --- what is kept in this browser --------------------------------------------------------------------------------------

    const key = (id) => `gradcampp-live:${chapter.page}:${id}`;

    function recall(name) {
        try {
            return localStorage.getItem(name);
        } catch {
            return null; // a browser that keeps nothing
        }
    }

    function keep(name, value, usual) {
        try {
            if (value === usual) localStorage.removeItem(name);
            else localStorage.setItem(name, value);
        } catch {
            // nothing is kept then
        }
    }

    // --- Python ------------------------------------------------------------------------------------------------------------

    function begin() {
        const worker = new Worker(new URL("worker.js", here), { type: "module" });
        const started = { worker, asked: new Map(), number: 0, state: "loading Python" };
        const fail = (said) => {
            for (const { reject } of started.asked.values()) reject(new Error(said));
            end();
        };
        worker.onmessage = ({ data }) => {
            if (data.failed) fail(`Python did not start: ${data.failed}`);
            else if (data.state) started.state = data.state;
            else {
                started.state = "running";
                started.asked.get(data.number).resolve(data);
                started.asked.delete(data.number);
            }
        };
        worker.onerror = (event) => {
            event.preventDefault();
            fail(`Python did not start${event.message ? `: ${event.message}` : ""}`);
        };
        return started;
    }

    function end() {
        if (python) python.worker.terminate();
        python = null;
        for (const cell of cells) cell.fresh = false;
    }

    function ask(question) {
        python ??= begin();
        const { worker, asked } = python;
        const number = ++python.number;
        return new Promise((resolve, reject) => {
            asked.set(number, { resolve, reject });
            worker.postMessage({ number, ...question });
        });
    }

    // --- a cell runs -------------------------------------------------------------------------------------------------------

    const seconds = (since) => `${((performance.now() - since) / 1000).toFixed(1)} s`;

    function previous(place) {
        const before = live.filter((each) => each.place < place).pop();
        return before ? before.place : null;
    }

    async function execute(cell) {
        const since = performance.now();
        const source = cell.field ? cell.field.value : cell.source;
        const ticking = setInterval(() => say(cell, `${python ? python.state : "stopped"}, ${seconds(since)}`, "busy"), 250);
        say(cell, python ? "running" : "loading Python", "busy");
        try {
            const { printed, error } = await ask({ place: cell.place, before: previous(cell.place), source });
            const changed = cell.ran !== null && cell.ran !== source;
            if (changed || error) stale(cell);
            Object.assign(cell, { fresh: !error, ran: source });
            show(cell, printed, error, seconds(since));
            return !error;
        } catch (error) {
            say(cell, error.message, "failed");
            return false;
        } finally {
            clearInterval(ticking);
        }
    }

    function stale(cell) {
        for (const later of live.filter((each) => each.place > cell.place)) {
            if (later.fresh) say(later, "a cell before it has changed: run again", "");
            later.fresh = false;
        }
    }

    // Runs those before a place that have not run; the asker, a cell or an answer, says what it waits for.
    async function prepare(place, asker) {
        for (const before of live.filter((each) => each.place < place && !each.fresh)) {
            say(asker, "waiting for the cells before it", "busy");
            if (await execute(before)) continue;
            say(asker, "not run: a cell before it did not finish", "failed");
            return false;
        }
        return true;
    }

    function enqueue(job) {
        const mine = turn;
        queue = queue.then(() => mine === turn && job());
    }

    const run = (cell) => enqueue(async () => (await prepare(cell.place, cell)) && execute(cell));

    // --- exercises ---------------------------------------------------------------------------------------------------------

    const VERDICTS = {
        right: ["right", "same"],
        nearly: ["nearly: some of it holds", "differs"],
        wrong: ["wrong", "failed"],
        open: ["not answered yet", ""],
    };

    async function grade(answer, check, place) {
        if (!(await prepare(place, answer))) return;
        say(answer, "checking", "busy");
        try {
            const { printed, error, verdict } = await ask({ before: previous(place), source: answer.field.value, check });
            say(answer, ...VERDICTS[verdict]);
            answer.now.replaceChildren(...printed.map(output), ...(error ? [output(["error", error])] : []));
            answer.now.hidden = !printed.length && !error;
            if (!answer.now.hidden && window.MathJax && MathJax.typesetPromise) MathJax.typesetPromise([answer.now]);
            if (verdict === "right") keep(key(`${answer.label}:done`), "yes", "");
        } catch (error) {
            say(answer, error.message, "failed");
        }
    }

    function pose(label, check) {
        const exercise = document.getElementById(label);
        const { place } = cells.find((cell) => cell.id === check.cell);
        const field = node("textarea", { value: recall(key(label)) ?? check.start, spellcheck: false, className: "live-source" });
        const answer = { label, field, state: status(), now: node("div", { className: "live-now", hidden: true }) };
        const act = () => enqueue(() => grade(answer, check, place));
        const done = recall(key(`${label}:done`)) ? " (solved)" : "";
        field.setAttribute("aria-label", "Your answer");
        field.addEventListener("input", () => {
            fit(field);
            keep(key(label), field.value, check.start);
        });
        field.addEventListener("keydown", (event) => {
            if (event.key !== "Enter" || !event.shiftKey) return;
            event.preventDefault();
            act();
        });
        const again = () => {
            field.value = check.start;
            fit(field);
            keep(key(label), field.value, check.start);
            keep(key(`${label}:done`), "", "");
            answer.now.hidden = true;
            say(answer, "", "");
        };
        answer.bar = node("div", { className: "live-bar" });
        answer.bar.append(
            node("button", { type: "button", textContent: "Check", onclick: act }),
            node("button", { type: "button", textContent: "Reset", onclick: again }),
            node("button", { type: "button", textContent: "Stop", onclick: stopped, className: "live-stop" }),
            answer.state,
        );
        const summary = node("summary", { textContent: `Answer here, in Python${done}` });
        exercise.append(node("details", { className: "live-answer" }, summary, field, answer.bar, answer.now));
        fit(field);
    }

    function excuse(label, needs) {
        const words = `Not checked in this page: an answer needs ${needs}, which does not run here. In Jupyter the assertions of the solution check it.`;
        document.getElementById(label).append(node("p", { className: "live-unchecked", textContent: words }));
    }

    // --- what is shown -----------------------------------------------------------------------------------------------------

    function say(cell, text, kind) {
        if (!cell.state) return;
        cell.state.textContent = text;
        cell.state.dataset.kind = kind;
        cell.bar.dataset.kind = kind;
    }

    function show(cell, printed, error, time) {
        if (!cell.state) return;
        const same = !error && JSON.stringify(printed) === JSON.stringify(cell.printed);
        const text = printed.length ? "as printed" : "as printed: nothing";
        if (error) say(cell, `error, ${time}`, "failed");
        else say(cell, `${same ? text : "differs from the printed output"}, ${time}`, same ? "same" : "differs");
        cell.now.replaceChildren(...(same ? [] : printed.map(output)), ...(error ? [output(["error", error])] : []));
        if (!same && !error && !printed.length) cell.now.append(node("p", { textContent: "(nothing)" }));
        cell.now.hidden = same;
        if (cell.output) cell.output.classList.toggle("live-old", !same);
        if (!same && window.MathJax && MathJax.typesetPromise) MathJax.typesetPromise([cell.now]);
    }

    function output([kind, text]) {
        if (kind === "table") {
            const rows = text.split("\n").map((line) => line.split(/ \| /).map((cell) => cell.replace(/\\\|/g, "|")));
            const cells = (row) => row.map((cell) => node("td", { textContent: cell.replace(/^\$(.*)\$$/, "\\($1\\)") }));
            return node("table", { className: "table" }, ...rows.map((row) => node("tr", {}, ...cells(row))));
        }
        if (kind !== "latex") return node("pre", { className: `live-${kind}`, textContent: text });
        const formula = text.replace(/^\$+|\$+$/g, "");
        return node("div", { className: "output text_latex math notranslate nohighlight", textContent: `\\[${formula}\\]` });
    }

    function status() {
        const made = node("span", { className: "live-state" });
        made.setAttribute("role", "status");
        return made;
    }

    function edit(cell, open) {
        cell.field.hidden = !open;
        cell.printedSource.hidden = open;
        cell.edit.setAttribute("aria-pressed", String(open));
        if (open) fit(cell.field);
    }

    const fit = (field) => (field.rows = field.value.split("\n").length + 1);

    function reset(cell) {
        const changed = cell.field.value !== cell.source;
        cell.field.value = cell.source;
        keep(key(cell.id), cell.field.value, cell.source);
        edit(cell, false);
        cell.now.hidden = true;
        if (cell.output) cell.output.classList.remove("live-old");
        say(cell, "", "");
        if (changed && cell.ran !== null) {
            cell.fresh = false;
            stale(cell);
        }
    }

    function equip(cell, input) {
        const name = `cell ${cells.filter((each) => each.shown && each.place <= cell.place).length}`;
        const button = (text, act) => {
            const made = node("button", { type: "button", textContent: text, onclick: act });
            made.setAttribute("aria-label", `${text} ${name}`);
            return made;
        };
        const place = input.closest("div.cell");
        cell.printedSource = input.querySelector("div[class*='highlight']");
        cell.output = place.querySelector(".cell_output");
        cell.field = node("textarea", { value: recall(key(cell.id)) ?? cell.source, spellcheck: false, hidden: true, className: "live-source" });
        cell.field.setAttribute("aria-label", `Source of ${name}`);
        cell.edit = button("Edit", () => {
            edit(cell, cell.field.hidden);
            if (!cell.field.hidden) cell.field.focus();
        });
        cell.state = status();
        const stop = button("Stop", stopped);
        stop.className = "live-stop";
        cell.bar = node("div", { className: "live-bar" });
        cell.bar.append(button("Run", () => run(cell)), cell.edit, button("Reset", () => reset(cell)), stop, cell.state);
        cell.now = node("div", { className: "live-now", hidden: true });
        cell.now.setAttribute("aria-label", `What ${name} prints now`);
        cell.field.addEventListener("input", () => {
            fit(cell.field);
            keep(key(cell.id), cell.field.value, cell.source);
        });
        place.addEventListener("keydown", (event) => {
            if (event.key !== "Enter" || !event.shiftKey) return;
            event.preventDefault();
            run(cell);
        });
        input.append(cell.field);
        input.after(cell.bar, cell.now);
        if (cell.field.value !== cell.source) edit(cell, true);
    }

    function stopped() {
        turn += 1;
        const asked = python ? [...python.asked.values()] : [];
        end();
        for (const { reject } of asked) reject(new Error("stopped: Python starts anew with the next run"));
    }

    function explain(cell, input) {
        const elsewhere = [["Colab", "colab.research.google.com"], ["Binder", "mybinder.org"]].flatMap(([name, host]) => {
            const link = document.querySelector(`a[href*='${host}']`);
            return link ? [node("a", { href: link.href, textContent: name }), ", "] : [];
        });
        const bar = node("div", { className: "live-bar live-away" });
        const where = elsewhere.length ? ["Run it in ", ...elsewhere, "or with Jupyter on your machine."] : [];
        if (!where.length) where.push("Run it with Jupyter on your machine: download this page as a notebook.");
        bar.append(`Needs ${cell.needs}, which does not run in the page. `, ...where);
        input.after(bar);
    }

    function introduce() {
        const heading = document.querySelector("article h1");
        const intro = node("div", { className: "live-intro" });
        if (served) {
            const all = node("button", { type: "button", textContent: "Run all cells", onclick: () => live.forEach(run) });
            const size = `Python and SymPy ${chapter.sympy} (${chapter.megabytes} MB) come from this site with the first run`;
            const text = `The cells below run in this page: Run, or Shift+Enter. ${size}; nothing that you type leaves this machine. `;
            intro.append(text, all);
        } else {
            intro.append(
                "The cells below can run in this page, but not where it is opened as a file, since a browser starts no worker there. ",
                node("code", { textContent: "make serve" }), " serves the book on this machine; so does ",
                node("code", { textContent: "python -m http.server" }), " in its folder.",
            );
        }
        heading.after(intro);
    }

    const inputs = document.querySelectorAll("div.cell .cell_input");
    introduce();
    cells.filter((cell) => cell.shown).forEach((cell, place) => {
        if (cell.needs) explain(cell, inputs[place]);
        else if (served) equip(cell, inputs[place]);
    });
    if (served) for (const [label, check] of Object.entries(chapter.exercises)) pose(label, check);
    for (const [label, needs] of Object.entries(chapter.unchecked)) excuse(label, needs);
});
