// Formulas as SVG: reads a JSON list of [TeX, displayed] from standard input, and writes a JSON list of SVG.
const [, , mathjax] = process.argv;
const formulas = JSON.parse(require("fs").readFileSync(0, "utf8"));
require(mathjax)
    .init({ loader: { load: ["input/tex", "output/svg"] }, svg: { fontCache: "local" } })
    .then((MathJax) => {
        const adaptor = MathJax.startup.adaptor;
        const drawn = formulas.map(([tex, display]) => adaptor.innerHTML(MathJax.tex2svg(tex, { display })));
        process.stdout.write(JSON.stringify(drawn));
    })
    .catch((error) => {
        console.error(error.message);
        process.exit(1);
    });
