/* Python in a worker of the page: Pyodide, SymPy and the kernel, all of them from this site.

   Takes {number, place, before, source}, answers {number, printed, error}; with {check}, an exercise, in the place of a place
   answers its {verdict} too. Says what it is doing in {state}. */
import { loadPyodide } from "./pyodide/pyodide.mjs";

// The WebAssembly is packed on the site: a third of the bytes, whatever the server does about compression.
const fetchPlainly = self.fetch;
self.fetch = async (address, options) => {
    if (!String(address).endsWith(".wasm")) return fetchPlainly(address, options);
    const answer = await fetchPlainly(`${address}.packed`, options);
    const unpacked = answer.body.pipeThrough(new DecompressionStream("gzip"));
    return new Response(unpacked, { status: answer.status, headers: { "Content-Type": "application/wasm" } });
};

async function bytes(name) {
    const answer = await fetchPlainly(new URL(name, import.meta.url));
    if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
    return new Uint8Array(await answer.arrayBuffer());
}

async function start() {
    const archives = ["sympy.zip", "book.zip"];
    const contents = Promise.all(archives.map(bytes));
    postMessage({ state: "loading Python" });
    const pyodide = await loadPyodide({ indexURL: new URL("./pyodide/", import.meta.url).href });
    postMessage({ state: "loading SymPy" });
    (await contents).forEach((content, place) => pyodide.FS.writeFile(`/lib/${archives[place]}`, content));
    pyodide.runPython("import sys\nsys.path[:0] = ['/lib/book.zip', '/lib/sympy.zip']\nimport kernel, sympy");
    return pyodide.runPython("kernel.Kernel()");
}

const ready = start();
ready.catch((error) => postMessage({ failed: String(error.message || error) }));

onmessage = async ({ data: { number, place, before, source, check } }) => {
    const kernel = await ready;
    postMessage({ state: "running" });
    const from = before ?? undefined;
    const said = check
        ? kernel.check(from, source, JSON.stringify(check.asked), JSON.stringify(check.conditions))
        : kernel.run(place, from, source);
    postMessage({ number, ...JSON.parse(said) });
};
