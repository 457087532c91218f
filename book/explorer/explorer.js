/* The explorer page: class activation maps computed in the browser, in float64, from data written by book/explorer/export.py.
 *
 * Equations are those of Lerma & Lucas (2022). A choice is {label, scores, method, lam}; label counts the classes of the scene.
 */
"use strict";

(() => {
  const { compute, unit, strongest, difference, upsample, distance } = gradcamppMaps;
  const { LAST, lamAt, positionFor, words, percent, place, colours, INFERNO, PURPLE_ORANGE, paint } = gradcamppMaps;
  const { tame, alphas, shrinkage, scene, listing } = gradcamppExplorer;

  const BINS = 25;
  const CHANNELS_SHOWN = 8;
  const ENLARGED = 10; // how many times the picture of the difference shows it
  const LEFT = 24; // of the bars in the drawing of the alphas, which is 320 wide
  const WIDTH = 280;
  const QUIET = 250; // ms without a change before the words are read out and the address follows
  const METHODS = { gradcam: "Grad-CAM", "gradcam+": "Grad-CAM+", "gradcam++": "Grad-CAM++ family" };
  function range({ least, most }) {
    const [low, high] = [Math.round(100 * least), Math.round(100 * most)];
    return low === high ? `${low} %` : `${low} to ${high} %`;
  }

  function start(root) {
    const inferno = colours(INFERNO);
    const diverging = colours(PURPLE_ORANGE);
    const part = (name) => root.querySelector(`[data-part="${name}"]`);
    const slider = part("lam");
    const state = { scene: listing[0].name, className: null, layer: null, scores: "pre", method: "gradcam++", lam: 1, unit: null };
    let current = null; // the prepared scene that is on show
    let drawn = null; // the choice and the result that are on show
    let bins = null; // of the histogram that is on show
    let quiet;

    function radios(fieldset, name, options, chosen, choose) {
      fieldset.replaceChildren(
        fieldset.querySelector("legend"),
        ...options.map(({ value, text, note, thumbnail }) => {
          const label = document.createElement("label");
          const input = Object.assign(document.createElement("input"), { type: "radio", name, value, checked: value === chosen });
          input.addEventListener("change", () => choose(value));
          const caption = document.createElement("span");
          caption.textContent = text;
          if (note) caption.append(Object.assign(document.createElement("small"), { textContent: note }));
          label.append(input);
          if (thumbnail) {
            const source = `data:image/png;base64,${thumbnail}`;
            label.append(Object.assign(document.createElement("img"), { src: source, alt: "", width: 56, height: 56 }));
          }
          label.append(caption);
          return label;
        }),
      );
    }

    /** The layers that are offered for the picture of the state; its scene's file is named after picture and layer. */
    const layers = () => listing.find(({ name }) => name === state.scene).layers;

    function file() {
      if (!layers()) return state.scene;
      if (!(state.layer in layers())) state.layer = Object.keys(layers())[0];
      return `${state.scene}-${state.layer}`;
    }

    async function show(change) {
      Object.assign(state, change);
      const name = file();
      try {
        const ready = await scene(name);
        if (file() !== name) return; // the reader has gone on
        if (ready !== current) await settle(ready);
        part("error").hidden = true;
        part("main").hidden = false;
        draw();
      } catch (error) {
        part("error").textContent = `${error.message} Reload the page; if that does not help, the book was built without them.`;
        part("error").hidden = false;
      }
    }

    /** Decode the picture of a new scene and offer its classes. */
    async function settle(ready) {
      const image = new Image();
      image.src = `data:image/png;base64,${ready.picture}`;
      await image.decode();
      const canvas = Object.assign(document.createElement("canvas"), { width: ready.size, height: ready.size });
      const context = canvas.getContext("2d");
      context.drawImage(image, 0, 0);
      const { data } = context.getImageData(0, 0, ready.size, ready.size);
      ready.grey = Float64Array.from({ length: ready.size ** 2 }, (_, i) =>
        Math.round(0.299 * data[4 * i] + 0.587 * data[4 * i + 1] + 0.114 * data[4 * i + 2]),
      );
      current = ready;
    }

    function controls() {
      const names = current.classes.map(({ name }) => name);
      if (!names.includes(state.className)) state.className = names[0];
      const options = (named) => Object.entries(named).map(([value, text]) => ({ value, text }));
      const titles = listing.map(({ name, title, thumbnail }) => ({ value: name, text: title, thumbnail }));
      const offered = current.classes.map(({ name, probability, present }) => ({
        value: name,
        text: name,
        note: `${percent(probability)}${present === false ? ", not in the picture" : ""}`,
      }));
      const groups = [
        ["scenes", titles, state.scene, (value) => show({ scene: value, className: null, unit: null })],
        ["layers", options(layers() ?? {}), state.layer, (value) => show({ layer: value, unit: null })],
        ["methods", options(METHODS), state.method, (value) => show({ method: value })],
        ["classes", offered, state.className, (value) => show({ className: value })],
        ["scores", options({ pre: "before softmax", post: "after softmax" }), state.scores, (value) => show({ scores: value })],
      ];
      for (const [name, list, chosen, choose] of groups) {
        const fieldset = part(name);
        const key = JSON.stringify(list.map(({ value }) => value));
        if (fieldset.dataset.options !== key) {
          radios(fieldset, `gx-${name}`, list, chosen, choose); // not at every change: the focus would be lost
          fieldset.dataset.options = key;
        }
        for (const input of fieldset.querySelectorAll("input")) input.checked = input.value === chosen;
      }
      part("layers").hidden = !layers();
      credit();
      slider.value = positionFor(state.lam);
      slider.setAttribute("aria-valuetext", state.lam === Infinity ? "infinity" : words(state.lam));
      part("lam-value").textContent = `λ = ${words(state.lam)}`;
      part("lam-block").classList.toggle("gx-unused", state.method !== "gradcam++");
      for (const button of root.querySelectorAll("[data-lam]")) {
        const pressed = state.method === "gradcam++" && Number(button.dataset.lam) === state.lam;
        button.setAttribute("aria-pressed", String(pressed));
      }
    }

    /** Whose photograph it is, under which licence, and which network looks at it. */
    function credit() {
      const link = (href, textContent) => Object.assign(document.createElement("a"), { href, textContent });
      const whose = current.credits.flatMap(({ title, author, licence, address, source, distribution }) => [
        ...[link(source, title), ` by ${author}, `, address ? link(address, licence) : licence, `, from ${distribution}. `],
      ]);
      part("credit").replaceChildren(...whose, current.network);
    }

    function choice() {
      const { scores, method, lam } = state;
      return { label: current.classes.findIndex(({ name }) => name === state.className), scores, method, lam };
    }

    function draw() {
      controls();
      const chosen = choice();
      const plus = compute(current, { ...chosen, method: "gradcam+" });
      const published = compute(current, { ...chosen, method: "gradcam++", lam: 1 });
      const result = compute(current, chosen);
      const found = picked(chosen, result);
      drawn = { ...state, ...result, found };
      const [large, largePlus, largePublished] = [result, plus, published].map(({ heat }) => upsample(current, heat));
      const fromPlus = distance(large, largePlus);
      const fromPublished = distance(large, largePublished);
      const opacity = Number(part("opacity").value) / 100;
      paint(part("map"), current.size, (i) => over(large[i], current.grey[i], opacity));
      paint(part("plus"), current.size, (i) => over(largePlus[i], current.grey[i], opacity));
      paint(part("difference"), current.size, (i) => diverging(0.5 + (ENLARGED / 2) * (large[i] - largePlus[i])));
      copyMaps();
      const family = chosen.method !== "gradcam";
      const effective = chosen.method === "gradcam++" ? chosen : { ...chosen, lam: 0 };
      const lost = family ? shrinkage(current, effective) : null;
      part("exact").textContent = difference(current, chosen).toFixed(3);
      part("from-plus").textContent = fromPlus.toFixed(3);
      part("from-published").textContent = fromPublished.toFixed(3);
      part("shrinkage").textContent = lost ? range(lost) : family ? "no weight" : "no alphas";
      bars(result.weights, plus.weights);
      histogram(effective, chosen.method, found);
      about(found, chosen, effective);
      const hottest = large.reduce((best, value, i) => (value > large[best] ? i : best), 0);
      const where = place(Math.floor(hottest / current.size) / current.size, (hottest % current.size) / current.size);
      say(chosen, large[hottest] > 0 ? where : null, fromPlus, fromPublished);
    }

    /** The unit of the state; else that which adds most to the weight of the channel that adds most to the hottest place. */
    function picked(chosen, { raw, weights: channelWeights }) {
      const { channel, row, column } = state.unit ?? {};
      const known = channel < current.channels && row < current.rows && column < current.columns;
      if (!known) state.unit = null;
      const hottest = raw.reduce((best, value, i) => (value > raw[best] ? i : best), 0);
      const k = known ? channel : strongest(current, channelWeights, hottest);
      const gradients = current.gradients[chosen.label][chosen.scores].subarray(k * current.units, (k + 1) * current.units);
      const steepest = gradients.reduce((best, g, i) => (g > gradients[best] ? i : best), hottest);
      return unit(current, chosen, k, known ? row * current.columns + column : steepest);
    }

    function pick(channel, at) {
      show({ unit: { channel, row: Math.floor(at / current.columns), column: at % current.columns } });
    }

    /** Numbers, formulas and marks of a unit, and the maps of its channel. */
    function about(found, chosen, { label, scores, lam }) {
      const [row, column] = [Math.floor(found.place / current.columns), found.place % current.columns];
      const numbers = { channel: [found.channel, current.channels], row: [row, current.rows], column: [column, current.columns] };
      for (const [name, [value, most]] of Object.entries(numbers)) {
        const field = part(`unit-${name}`);
        if (field !== document.activeElement) field.value = value; // not while the reader types
        field.max = most - 1;
      }
      for (const name of ["a", "g", "s"]) part(`unit-${name}`).textContent = gradcamppUnit.number(found[name]);
      const lines = gradcamppUnit.formulas(found, chosen, current.units);
      const node = (name, textContent) => Object.assign(document.createElement(name), { textContent });
      part("formulas").replaceChildren(...lines.flatMap(([name, line]) => [node("dt", name), node("dd", line)]));
      const first = found.channel * current.units;
      const maps = current.activations.subarray(first, first + current.units);
      const most = Math.max(...maps) || 1;
      const gradients = current.gradients[label][scores].subarray(first, first + current.units);
      paint(part("unit-activations"), current.rows, (i) => inferno(maps[i] / most));
      paint(part("unit-alphas"), current.rows, (i) => (gradients[i] > 0 ? inferno(2 * tame(lam, found.s, gradients[i])) : [128, 128, 128]));
      for (const button of root.querySelectorAll("[data-over]")) {
        button.setAttribute("aria-label", `${button.dataset.over}: row ${row}, column ${column} of its units is marked. Arrow keys move the mark.`);
        const style = { left: column / current.columns, top: row / current.rows, width: 1 / current.columns, height: 1 / current.rows };
        for (const [name, value] of Object.entries(style)) button.firstElementChild.style[name] = `${100 * value}%`;
      }
    }

    /** Show the small copies where the maps themselves are behind the slider, or nearly. */
    function follow() {
      const [maps, above] = ["pictures", "lam-block"].map((name) => part(name).getBoundingClientRect());
      part("strip").hidden = maps.bottom > above.bottom + 100;
    }

    function copyMaps() {
      follow();
      for (const copy of part("strip").querySelectorAll("canvas")) {
        if (copy.width !== current.size) Object.assign(copy, { width: current.size, height: current.size });
        copy.getContext("2d").drawImage(part(copy.dataset.of), 0, 0);
      }
    }

    function over(heat, grey, opacity) {
      const [red, green, blue] = inferno(heat);
      const rest = (1 - opacity) * grey;
      return [opacity * red + rest, opacity * green + rest, opacity * blue + rest]; // the canvas rounds
    }

    /** The channels with the largest weights; a tick marks what Grad-CAM+ gives them. Both are relative to their largest. */
    function bars(values, plus) {
      const active = [...values.keys()].filter((k) => current.sums[k] > 0);
      const scale = (list) => Math.max(...active.map((k) => Math.abs(list[k]))) || 1;
      const [most, mostPlus] = [scale(values), scale(plus)];
      active.sort((a, b) => Math.abs(values[b]) - Math.abs(values[a]) || a - b);
      const list = part("weights");
      while (list.children.length < CHANNELS_SHOWN) list.append(part("bar").content.cloneNode(true));
      active.slice(0, CHANNELS_SHOWN).forEach((k, row) => {
        const relative = values[k] / most;
        const [name, track, number] = list.children[row].children;
        name.textContent = `channel ${k}`;
        name.onclick = () => pick(k, drawn.found.place);
        track.classList.toggle("gx-negative", relative < 0);
        track.children[0].style.width = `${100 * Math.abs(relative)}%`;
        track.children[1].style.left = `${(100 * plus[k]) / mostPlus}%`;
        number.textContent = relative.toFixed(2).replace("-", "−");
      });
    }

    const binOf = (alpha) => Math.min(BINS - 1, Math.floor(2 * alpha * BINS));

    function histogram(chosen, method, { g, s }) {
      const found = alphas(current, chosen);
      const counts = new Array(BINS).fill(0);
      found.forEach((alpha) => counts[binOf(alpha)]++);
      const here = g > 0 ? binOf(tame(chosen.lam, s, g)) : -1;
      bins = { counts, bin: here, chosen };
      const svg = part("alphas");
      const drawing = svg.querySelector("g");
      while (drawing.children.length < BINS) drawing.append(document.createElementNS(svg.namespaceURI, "rect"));
      const most = Math.max(...counts);
      const left = (bin) => LEFT + (WIDTH / BINS) * bin;
      counts.forEach((count, bin) => {
        const height = most ? (110 * count) / most : 0;
        const sizes = { x: left(bin) + 0.6, width: WIDTH / BINS - 1.2, y: 130 - height, height };
        for (const [name, value] of Object.entries(sizes)) drawing.children[bin].setAttribute(name, value.toFixed(2));
      });
      part("alphas-here").setAttribute("x", left(here + 0.5)); // a mark below the bar of the unit
      part("alphas-here").textContent = here < 0 ? "" : "▲";
      const label = part("alphas-most"); // the height of the tallest bar
      label.textContent = most ? percent(most / found.length) : "";
      label.setAttribute("x", left(counts.indexOf(most) + 0.5));
      label.setAttribute("y", 15);
      const numbers = found.length
        ? `${found.length.toLocaleString("en")} units have a positive gradient; smallest α ${found[0].toFixed(3)}, ` +
          `median ${found[found.length >> 1].toFixed(3)}, largest ${found[found.length - 1].toFixed(3)}.`
        : "No unit has a positive gradient.";
      const notes = {
        gradcam: "Grad-CAM has no alphas: it averages all gradients, the negative ones too. Shown: λ = 0.",
        "gradcam+": "Grad-CAM+ treats all units alike, as λ = 0 does.",
        "gradcam++":
          chosen.lam === Infinity ? "In the limit λα = 1/(s g): each unit adds the same to its channel, however large its gradient." : "",
      };
      part("alphas-words").textContent = `${numbers} ${notes[method]}`.trim();
      svg.setAttribute("aria-label", `Histogram of the effective alphas from 0 to one half. ${numbers}`);
    }

    /** Of the units with an alpha in a bin, the one that adds most to the weight of its channel. */
    function pickFromBin(bin) {
      const { label, scores, lam } = bins.chosen;
      let [best, most] = [-1, -1];
      current.gradients[label][scores].forEach((g, i) => {
        const alpha = g > 0 ? tame(lam, current.sums[Math.floor(i / current.units)], g) : -1;
        if (g > 0 && binOf(alpha) === bin && alpha * g > most) [best, most] = [i, alpha * g];
      });
      pick(Math.floor(best / current.units), best % current.units);
    }

    function say(chosen, where, fromPlus, fromPublished) {
      const { name, probability, present } = current.classes[chosen.label];
      const method = chosen.method === "gradcam++" ? `${METHODS[chosen.method]} at λ = ${words(chosen.lam)}` : METHODS[chosen.method];
      const kind = chosen.scores === "pre" ? "before softmax" : "after softmax";
      const missing = present === false ? ", which is not in the picture" : "";
      const hottest = where ? `The map is hottest ${where}.` : "The map is zero everywhere.";
      const sentence =
        `${method}, gradients ${kind}, for “${name}” (${percent(probability)}${missing}). ${hottest} ` +
        `At no pixel does it differ by more than ${fromPlus.toFixed(3)} from Grad-CAM+ ` +
        `and ${fromPublished.toFixed(3)} from Grad-CAM++ (λ = 1), on a scale from 0 to 1. In the picture: ${current.description}.`;
      part("map").setAttribute("aria-label", `Heatmap over the picture. ${sentence}`);
      clearTimeout(quiet);
      quiet = setTimeout(() => {
        part("summary").textContent = sentence;
        history.replaceState(history.state, "", address());
      }, QUIET);
    }

    // The address of the page holds the choice, so that it can be shared.

    function address() {
      const { scene: name, className, scores, method, lam } = state;
      const lamText = lam === Infinity ? "inf" : String(Number(lam.toPrecision(4)));
      const layer = layers() ? { layer: state.layer } : {};
      const { channel, row, column } = state.unit ?? {};
      const chosen = state.unit ? { unit: `${channel}.${row}.${column}` } : {};
      return `#${new URLSearchParams({ scene: name, class: className, ...layer, scores, method, lam: lamText, ...chosen })}`;
    }

    function addressed() {
      const wanted = new URLSearchParams(location.hash.slice(1));
      if (!listing.some(({ name }) => name === wanted.get("scene"))) return null;
      const [, channel, row, column] = /^(\d+)\.(\d+)\.(\d+)$/.exec(wanted.get("unit")) ?? [];
      const chosen = channel && { channel: Number(channel), row: Number(row), column: Number(column) };
      const change = { scene: wanted.get("scene"), className: wanted.get("class"), layer: wanted.get("layer"), unit: chosen ?? null };
      if (["pre", "post"].includes(wanted.get("scores"))) change.scores = wanted.get("scores");
      if (wanted.get("method") in METHODS) change.method = wanted.get("method");
      const lam = wanted.get("lam") === "inf" ? Infinity : Number(wanted.get("lam") ?? NaN);
      if (lam >= 0) change.lam = lamAt(positionFor(lam));
      return change;
    }

    slider.max = LAST;
    slider.addEventListener("input", () => show({ lam: lamAt(Number(slider.value)), method: "gradcam++" }));
    for (const button of root.querySelectorAll("[data-lam]")) {
      button.addEventListener("click", () => show({ lam: Number(button.dataset.lam), method: "gradcam++" }));
    }
    part("opacity").addEventListener("input", draw);
    for (const button of root.querySelectorAll("[data-over]")) {
      const channel = (at) => ("channel" in button.dataset ? drawn.found.channel : strongest(current, drawn.weights, at));
      const here = () => ({ rows: current.rows, columns: current.columns, place: drawn.found.place });
      gradcamppUnit.overMap(button, here, (at) => pick(channel(at), at));
    }
    gradcamppUnit.overBars(part("over-alphas"), { left: LEFT / 320, width: WIDTH / 320 }, () => bins, pickFromBin);
    for (const name of ["channel", "row", "column"]) {
      part(`unit-${name}`).addEventListener("change", ({ target }) => {
        const number = Math.min(Math.max(Math.round(Number(target.value)) || 0, 0), Number(target.max));
        target.value = number;
        const { channel, place: at } = drawn.found;
        const now = { channel, row: Math.floor(at / current.columns), column: at % current.columns };
        show({ unit: { ...now, [name]: number } });
      });
    }
    part("unit-auto").addEventListener("click", () => show({ unit: null }));
    for (const event of ["scroll", "resize"]) addEventListener(event, follow, { passive: true });
    addEventListener("hashchange", () => {
      const change = addressed();
      if (!change) return;
      const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
      root.querySelector(".gx-body").scrollIntoView({ behavior: still ? "auto" : "smooth" });
      show(change);
    });
    show(addressed() ?? {});
    return { shown: () => drawn };
  }

  /** Load the list of pictures and bring the page's block to life. */
  async function begin(root) {
    try {
      await gradcamppExplorer.load("scenes.js");
      Object.assign(gradcamppExplorer, start(root));
    } catch (error) {
      const line = root.querySelector('[data-part="error"]');
      line.textContent = `${error.message} Reload the page; if that does not help, the book was built without them.`;
      line.hidden = false;
    }
  }

  begin(document.getElementById("gradcampp-explorer"));
})();
