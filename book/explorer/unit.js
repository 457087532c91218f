/* One unit of the explorer: its numbers put into the formulas, and how a reader chooses it. */
"use strict";

const gradcamppUnit = (() => {
  const RAISED = Object.fromEntries([..."-0123456789"].map((digit, i) => [digit, "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"[i]]));
  const LOWERED = (channel) => [...String(channel)].map((digit) => "₀₁₂₃₄₅₆₇₈₉"[digit]).join("");

  /** A number with four digits that count: 0.04567, 1.234 × 10⁻⁷. */
  function number(value) {
    if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
    const size = Math.abs(value);
    if (value === 0 || (size >= 1e-4 && size < 1e5)) return String(Number(value.toPrecision(4))).replace("-", "−");
    const [digits, power] = value.toExponential(3).split("e");
    return `${digits.replace("-", "−")} × 10${[...power.replace("+", "")].map((sign) => RAISED[sign]).join("")}`;
  }

  const put = (value) => (value < 0 || /×/.test(number(value)) ? `(${number(value)})` : number(value));

  /** The formula of alpha with the numbers of a unit. */
  function alphaLine({ g, s, alpha }, lam) {
    const equation = lam === 1 ? "Eq. 9" : "Eq. 12";
    if (g === 0) return [equation, "is 0/0 where the gradient is 0; α is set to 0"];
    if (lam === Infinity) return [equation, s > 0 ? `λα → 1 / (s g) = 1 / (${put(s)} · ${put(g)}) = ${number(alpha)}` : "has no limit where s = 0"];
    const [formula, factor] = lam === 1 ? ["s g³", ""] : ["λ s g³", `${put(lam)} · `];
    const numbers = `${put(g)}² / (2 · ${put(g)}² + ${factor}${put(s)} · ${put(g)}³)`;
    return [equation, `α = g² / (2 g² + ${formula}) = ${numbers} = ${number(alpha)}`];
  }

  /** The formulas of a method with the numbers of a unit, as gradcamppMaps.unit gives it: pairs of a name and a line. */
  function formulas(unit, { method, lam }, units) {
    const { a, g, part, alpha, weight, contribution, map, channel } = unit;
    const limit = method === "gradcam++" && lam === Infinity;
    const w = `${limit ? "λ" : ""}w${LOWERED(channel)}`;
    const lines = [];
    if (method === "gradcam") lines.push(["Eq. 1", `this unit adds g / Z = ${put(g)} / ${units} = ${number(part)} to ${w}`]);
    else if (g <= 0) lines.push([method === "gradcam+" ? "Eq. 3" : "Eq. 4", `ReLU(g) = 0, so this unit adds 0 to ${w}`]);
    else if (method === "gradcam+") lines.push(["Eq. 3", `this unit adds ReLU(g) / Z = ${put(g)} / ${units} = ${number(part)} to ${w}`]);
    else if (limit) lines.push(["Eq. 4", `this unit adds λα ReLU(g) → 1 / s = ${number(part)} to ${w}`]);
    else lines.push(["Eq. 4", `this unit adds α ReLU(g) = ${put(alpha)} · ${put(g)} = ${number(part)} to ${w}`]);
    if (method === "gradcam++") lines.unshift(alphaLine(unit, lam));
    const share = method !== "gradcam" && part > 0 ? `, of which this unit is ${gradcamppMaps.percent(part / weight)}` : "";
    lines.push(["All units", `${w} = ${number(weight)}${share}`]);
    const cut = map < 0 ? "; the ReLU makes that 0" : "";
    lines.push(["Eq. 2", `the channel adds ${w} A = ${put(weight)} · ${put(a)} = ${number(contribution)} here; all channels: ${number(map)}${cut}`]);
    return lines;
  }

  /** Let a button over a map choose a unit: with the mouse, with the arrow keys, and with Enter the one that is marked.
   *
   * here gives {rows, columns, place} as they are; choose takes the place.
   */
  function overMap(button, here, choose) {
    button.addEventListener("click", (event) => {
      const { rows, columns, place } = here();
      if (event.detail === 0) return choose(place); // Enter or the space bar
      const box = button.getBoundingClientRect();
      const at = (part, length) => Math.min(length - 1, Math.max(0, Math.floor(part * length)));
      choose(at((event.clientY - box.top) / box.height, rows) * columns + at((event.clientX - box.left) / box.width, columns));
    });
    button.addEventListener("keydown", (event) => {
      const { rows, columns, place } = here();
      const [row, column] = [Math.floor(place / columns), place % columns];
      const to = { ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1] }[event.key];
      if (!to) return;
      event.preventDefault();
      if (to[0] >= 0 && to[0] < rows && to[1] >= 0 && to[1] < columns) choose(to[0] * columns + to[1]);
    });
  }

  /** Let a button over a histogram choose a bin that is not empty: the nearest to a click, the next with the arrow keys.
   *
   * here gives {counts, bin}, the number of units of every bin, and the bin that is marked, or -1; left and width say where
   * the bars stand, as parts of the button's width.
   */
  function overBars(button, { left, width }, here, choose) {
    const filled = (counts) => [...counts.keys()].filter((bin) => counts[bin] > 0);
    button.addEventListener("click", (event) => {
      const { counts, bin } = here();
      const box = button.getBoundingClientRect();
      const aimed = event.detail === 0 ? bin : (((event.clientX - box.left) / box.width - left) / width) * counts.length - 0.5;
      const [nearest] = filled(counts).sort((one, other) => Math.abs(one - aimed) - Math.abs(other - aimed));
      if (nearest !== undefined) choose(nearest);
    });
    button.addEventListener("keydown", (event) => {
      if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
      event.preventDefault();
      const { counts, bin } = here();
      const next = event.key === "ArrowRight" ? filled(counts).find((each) => each > bin) : filled(counts).findLast((each) => each < bin);
      if (next !== undefined) choose(next);
    });
  }

  return { number, formulas, overMap, overBars };
})();
