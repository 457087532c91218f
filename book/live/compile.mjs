/* Compile SymPy and mpmath with the Python of the pages, for one archive that it imports from as it is.

   node compile.mjs SITE_PACKAGES ARCHIVE */
import { loadPyodide } from "../web/node_modules/pyodide/pyodide.mjs";

const [from, to] = process.argv.slice(2);
const pyodide = await loadPyodide();
for (const [root, place] of [[from, "/from"], [to.replace(/[^/]*$/, ""), "/to"]]) {
    pyodide.FS.mkdirTree(place);
    pyodide.FS.mount(pyodide.FS.filesystems.NODEFS, { root }, place);
}
pyodide.globals.set("name", to.replace(/.*\//, ""));
pyodide.runPython(`
import importlib._bootstrap_external as importing
import importlib.util, pathlib, warnings, zipfile

warnings.simplefilter("ignore")  # those of SymPy's own sources
with zipfile.ZipFile(f"/to/{name}", "w") as archive:
    for path in [each for top in ("sympy", "mpmath") for each in sorted(pathlib.Path("/from", top).rglob("*.py"))]:
        inside = path.relative_to("/from")
        if {"tests", "benchmarks"} & set(inside.parts):
            continue
        source = path.read_bytes()
        code = compile(source, str(inside), "exec", dont_inherit=True)
        compiled = importing._code_to_hash_pyc(code, importlib.util.source_hash(source), False)
        entry = zipfile.ZipInfo(str(inside.with_suffix(".pyc")))  # of a fixed date: the same bytes every time
        archive.writestr(entry, compiled, zipfile.ZIP_DEFLATED, 9)
`);
