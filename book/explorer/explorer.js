/* The explorer page: class activation maps computed in the browser, in float64, from data written by gradcampp.explorer.
 *
 * First the mathematics, which knows no page; then the data; then the page. Equations are those of Lerma & Lucas (2022).
 */
"use strict";

const gradcamppExplorer = (() => {
  const { weights, compute, upsample, distance, LAST, lamAt, positionFor, words, percent, place } = gradcamppMaps;
  const { colours, INFERNO, PURPLE_ORANGE, paint } = gradcamppMaps;

  // --- mathematics: a choice is {label, scores, method, lam}; label counts the classes of the scene ----------------------

  /** Values of an array as gradcampp.explorer writes it, zeros included: a Float64Array of the given length. */
  function decode(array, length) {
    const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const mask = bytes(array.mask);
    const values = new DataView(bytes(array.values).buffer);
    const all = new Float64Array(length);
    for (let i = 0, next = 0; i < length; i++) {
      if (mask[i >> 3] & (0x80 >> (i & 7))) {
        all[i] = values.getFloat32(next, true);
        next += 4;
      }
    }
    return all;
  }

  /** A scene ready to compute with: arrays decoded, and the sum s_k of every feature map. */
  function prepare(data) {
    const [channels, rows, columns] = data.shape;
    const units = rows * columns;
    const activations = decode(data.activations, channels * units);
    const sums = new Float64Array(channels);
    activations.forEach((value, i) => (sums[Math.floor(i / units)] += value));
    const gradients = data.classes.map(({ gradients: kinds }) =>
      Object.fromEntries(Object.entries(kinds).map(([kind, array]) => [kind, decode(array, channels * units)])),
    );
    return { ...data, channels, rows, columns, units, activations, sums, gradients };
  }

  /** The alphas that count, 1 / (2 + lam * s * g) at the units with positive gradient: sorted, each in [0, 1/2]. */
  function alphas(scene, { label, scores, lam }) {
    const found = [];
    scene.gradients[label][scores].forEach((g, i) => {
      const term = scene.sums[Math.floor(i / scene.units)] * g;
      if (g > 0) found.push(term > 0 ? 1 / (2 + lam * term) : 0.5);
    });
    return Float64Array.from(found).sort();
  }

  /** What the sandwich theorem guarantees: {least, most} shrinkage of a channel, and a bound on the distance of the maps.
   *
   * Every channel keeps the part q_k = w_k / ŵ_k of its Grad-CAM+ weight. With rho = min q / max q and mu = min L̂ / max L̂,
   * the two min-max maps differ by at most (1 - rho) / (1 - mu) anywhere.
   */
  function sandwich(scene, choice) {
    const plus = compute(scene, { ...choice, method: "gradcam++", lam: 0 });
    const kept = [...weights(scene, { ...choice, method: "gradcam++" })]
      .map((weight, k) => weight / plus.weights[k])
      .filter((_, k) => scene.sums[k] > 0 && plus.weights[k] > 0);
    const high = Math.max(...plus.raw);
    const ratio = Math.min(...plus.raw) / high;
    if (!kept.length || !(ratio < 1)) return null;
    const [least, most] = [Math.min(...kept), Math.max(...kept)];
    const shrinkage = choice.lam === Infinity ? { least: 1, most: 1 } : { least: 1 - most, most: 1 - least };
    return { ...shrinkage, bound: Math.min(1, (1 - least / most) / (1 - ratio)) };
  }

  // --- data: a script for each scene, so that a page opened from disk can load it as well ---------------------------------

  const folder = new URL(".", document.currentScript.src);
  const received = new Map();
  const loading = new Map();
  let listing = [];

  function load(file) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = new URL(file, folder);
      script.onload = resolve;
      script.onerror = () => reject(new Error(`The data of the explorer are missing: explorer/${file} could not be loaded.`));
      document.head.append(script);
    });
  }

  /** A prepared scene by name, loaded when it is first asked for. */
  function scene(name) {
    if (!loading.has(name)) {
      const wanted = load(`${name}.js`).then(() => prepare(received.get(name)));
      wanted.catch(() => loading.delete(name)); // the next choice of the scene tries again
      loading.set(name, wanted);
    }
    return loading.get(name);
  }

  // --- page -----------------------------------------------------------------------------------------------------------------

  const BINS = 25;
  const CHANNELS_SHOWN = 8;
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
    const state = { scene: listing[0].name, className: null, scores: "pre", method: "gradcam++", lam: 1 };
    let current = null; // the prepared scene that is on show
    let drawn = null; // the choice and the result that are on show
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

    async function show(change) {
      Object.assign(state, change);
      const name = state.scene;
      try {
        const ready = await scene(name);
        if (state.scene !== name) return; // the reader has gone on
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
        note: `${percent(probability)}${present ? "" : ", not in the picture"}`,
      }));
      const groups = [
        ["scenes", titles, state.scene, (value) => show({ scene: value, className: null })],
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
      slider.value = positionFor(state.lam);
      slider.setAttribute("aria-valuetext", state.lam === Infinity ? "infinity" : words(state.lam));
      part("lam-value").textContent = `λ = ${words(state.lam)}`;
      part("lam-block").classList.toggle("gx-unused", state.method !== "gradcam++");
      for (const button of root.querySelectorAll("[data-lam]")) {
        const pressed = state.method === "gradcam++" && Number(button.dataset.lam) === state.lam;
        button.setAttribute("aria-pressed", String(pressed));
      }
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
      drawn = { ...state, ...result };
      const [large, largePlus, largePublished] = [result, plus, published].map(({ heat }) => upsample(current, heat));
      const fromPlus = distance(large, largePlus);
      const fromPublished = distance(large, largePublished);
      const opacity = Number(part("opacity").value) / 100;
      paint(part("map"), current.size, (i) => over(large[i], current.grey[i], opacity));
      paint(part("plus"), current.size, (i) => over(largePlus[i], current.grey[i], opacity));
      paint(part("difference"), current.size, (i) => diverging(0.5 + large[i] - largePlus[i]));
      const family = chosen.method !== "gradcam";
      const effective = chosen.method === "gradcam++" ? chosen : { ...chosen, lam: 0 };
      const promise = family ? sandwich(current, effective) : null;
      part("from-plus").textContent = fromPlus.toFixed(3);
      part("from-published").textContent = fromPublished.toFixed(3);
      part("shrinkage").textContent = promise ? range(promise) : "not bounded";
      part("bound").textContent = promise ? promise.bound.toFixed(3) : "none";
      bars(result.weights, plus.weights);
      histogram(effective, chosen.method);
      const hottest = large.reduce((best, value, i) => (value > large[best] ? i : best), 0);
      const where = place(Math.floor(hottest / current.size) / current.size, (hottest % current.size) / current.size);
      say(chosen, large[hottest] > 0 ? where : null, fromPlus, fromPublished);
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
        track.classList.toggle("gx-negative", relative < 0);
        track.children[0].style.width = `${100 * Math.abs(relative)}%`;
        track.children[1].style.left = `${(100 * plus[k]) / mostPlus}%`;
        number.textContent = relative.toFixed(2).replace("-", "−");
      });
    }

    function histogram(chosen, method) {
      const found = alphas(current, chosen);
      const counts = new Array(BINS).fill(0);
      found.forEach((alpha) => counts[Math.min(BINS - 1, Math.floor(2 * alpha * BINS))]++);
      const svg = part("alphas");
      const drawing = svg.querySelector("g");
      while (drawing.children.length < BINS) drawing.append(document.createElementNS(svg.namespaceURI, "rect"));
      const most = Math.max(...counts);
      const left = (bin) => 24 + (280 / BINS) * bin;
      counts.forEach((count, bin) => {
        const height = most ? (110 * count) / most : 0;
        const sizes = { x: left(bin) + 0.6, width: 280 / BINS - 1.2, y: 130 - height, height };
        for (const [name, value] of Object.entries(sizes)) drawing.children[bin].setAttribute(name, value.toFixed(2));
      });
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

    function say(chosen, where, fromPlus, fromPublished) {
      const { name, probability, present } = current.classes[chosen.label];
      const method = chosen.method === "gradcam++" ? `${METHODS[chosen.method]} at λ = ${words(chosen.lam)}` : METHODS[chosen.method];
      const kind = chosen.scores === "pre" ? "before softmax" : "after softmax";
      const missing = present ? "" : ", which is not in the picture";
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
      return `#${new URLSearchParams({ scene: name, class: className, scores, method, lam: lamText })}`;
    }

    function addressed() {
      const wanted = new URLSearchParams(location.hash.slice(1));
      if (!listing.some(({ name }) => name === wanted.get("scene"))) return null;
      const change = { scene: wanted.get("scene"), className: wanted.get("class") };
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
    addEventListener("hashchange", () => {
      const change = addressed();
      if (!change) return;
      const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
      part("pictures").scrollIntoView({ behavior: still ? "auto" : "smooth" });
      show(change);
    });
    show(addressed() ?? {});
    return { shown: () => drawn };
  }

  const api = {
    decode,
    prepare,
    compute,
    alphas,
    sandwich,
    upsample,
    scene,
    listScenes: (scenes) => (listing = scenes),
    addScene: (data) => received.set(data.name, data),
  };

  /** Load the list of scenes and bring the page's block to life. */
  api.start = async (root) => {
    try {
      await load("scenes.js");
      Object.assign(api, start(root));
    } catch (error) {
      const line = root.querySelector('[data-part="error"]');
      line.textContent = `${error.message} Reload the page; if that does not help, the book was built without them.`;
      line.hidden = false;
    }
  };
  return api;
})();

gradcamppExplorer.start(document.getElementById("gradcampp-explorer"));
