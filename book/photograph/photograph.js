/* The page "Your own photograph": class activation maps of EfficientNet-Lite0, computed in the browser.
 *
 * First what a run of the network means, then the network itself, then the page. Mathematics that the explorer needs too is in
 * explorer/maps.js, what the network sees of a photograph in pixels.js, files in picture.js. Equations are those of Lerma & Lucas (2022).
 */
"use strict";

const gradcamppPhotograph = (() => {
  const { compute, upsample, distance, LAST, lamAt, positionFor, words, percent, place } = gradcamppMaps;
  const { colours, INFERNO, PURPLE_ORANGE, paint } = gradcamppMaps;
  const { classes, version, layers, samples } = gradcamppSettings;
  const { CROP } = gradcamppPixels;

  // --- mathematics ----------------------------------------------------------------------------------------------------------

  const UNITS = 49;
  const METHODS = { gradcam: "Grad-CAM", "gradcam+": "Grad-CAM+", "gradcam++": "Grad-CAM++" };
  const SCORES = { pre: "before the softmax", post: "after the softmax" };

  function softmax(logits) {
    const most = logits.reduce((a, b) => Math.max(a, b));
    const powers = Float64Array.from(logits, (value) => Math.exp(value - most));
    const sum = powers.reduce((a, b) => a + b);
    return powers.map((value) => value / sum);
  }

  function best(scores, count) {
    return [...scores.keys()].sort((a, b) => scores[b] - scores[a] || a - b).slice(0, count);
  }

  /** Feature maps and gradients of a layer, as gradcamppMaps takes them; one gradient a channel is that of all its units. */
  function scene(outputs, layer) {
    const activations = outputs[layer];
    const channels = activations.length / UNITS;
    const sums = new Float64Array(channels);
    activations.forEach((value, i) => (sums[Math.floor(i / UNITS)] += value));
    const full = (values) =>
      values.length === activations.length ? values : Float32Array.from(activations, (_, i) => values[Math.floor(i / UNITS)]);
    const gradients = [{ pre: full(outputs[`${layer}_pre`]), post: full(outputs[`${layer}_post`]) }];
    return { channels, rows: 7, columns: 7, units: UNITS, size: CROP, activations, sums, gradients };
  }

  /** A map of a scene, coarse and enlarged: {raw, heat, large}. */
  function map(explained, scores, method, lam) {
    const { raw, heat } = compute(explained, { label: 0, scores, method, lam });
    return { raw, heat, large: upsample(explained, heat) };
  }

  /** Eq. 15: the pixels, darkened where the map is low. */
  function explanationMap(large, planes) {
    return planes.map((value, i) => value * large[i % large.length]);
  }

  // --- the network: a worker that answers one question after the other ------------------------------------------------------

  const folder = new URL(".", document.currentScript.src);
  const asked = new Map();
  let worker = null;

  function fail(message) {
    for (const { reject } of asked.values()) reject(new Error(message));
    asked.clear();
    worker?.terminate();
    worker = null; // the next question tries again
  }

  /** Outputs by name for a batch: pixels in [0, 1], channel by channel, and a class for each picture. */
  function ask(pixels, labels, wanted) {
    if (!worker) {
      worker = new Worker(new URL("worker.js", folder));
      worker.onerror = () => fail("The network could not be loaded. Reload the page; if that does not help, the book was built without it.");
      worker.onmessage = ({ data: { id, outputs, ready, error } }) => {
        if (ready === false) fail(`The network could not be loaded (${error}). Reload the page and choose the photograph again.`);
        const question = asked.get(id);
        asked.delete(id);
        if (error) question?.reject(new Error(`The network failed: ${error}`));
        else question?.resolve(outputs);
      };
    }
    return new Promise((resolve, reject) => {
      const id = crypto.getRandomValues(new Uint32Array(1))[0];
      asked.set(id, { resolve, reject });
      worker.postMessage({ id, pixels, labels, wanted, size: CROP });
    });
  }

  /** Softmax scores of one photograph, (1000). */
  async function classify(planes) {
    return softmax((await ask(planes, [0], ["logits"])).logits);
  }

  /** The scenes of both layers for one class. */
  async function explain(planes, label) {
    const wanted = Object.keys(layers).flatMap((layer) => [layer, `${layer}_pre`, `${layer}_post`]);
    const outputs = await ask(planes, [label], wanted);
    return Object.fromEntries(Object.keys(layers).map((layer) => [layer, scene(outputs, layer)]));
  }

  /** The score of a class through each of some enlarged maps. */
  async function scoresThrough(planes, label, larges) {
    const pixels = new Float32Array(planes.length * larges.length);
    larges.forEach((large, i) => pixels.set(explanationMap(large, planes), i * planes.length));
    const { logits } = await ask(pixels, larges.map(() => label), ["logits"]);
    return larges.map((_, i) => softmax(logits.subarray(i * classes.length, (i + 1) * classes.length))[label]);
  }

  // --- page -----------------------------------------------------------------------------------------------------------------

  const QUIET = 250; // ms without a change before scores follow and words are read out
  const MOST = 2; // classes at a time
  const LAYERS = {
    head: { text: "the last ones", note: `${layers.head}, 1280 × 7 × 7` },
    inner: { text: "behind the depthwise convolution", note: `${layers.inner}, 1152 × 7 × 7` },
  };
  const NOTES = {
    head:
      "Behind these maps come average pooling and one linear layer: all units of a map have the same gradient (theorem 5), so λ can only " +
      "shrink whole channels, and hardly matters.",
    inner:
      "Behind these maps come two convolutions and a ReLU6: gradients differ from unit to unit, and λ has something to change. " +
      "Grad-CAM's own map is often zero everywhere here.",
  };

  function number(value) {
    return value === 0 || value >= 0.001 ? value.toFixed(4) : value.toExponential(1).replace("-", "−");
  }

  /** Half of the range that the picture of a difference shows: the smallest of a few that holds it. */
  function span(largest) {
    return [0.001, 0.005, 0.02, 0.1, 0.5].find((half) => largest <= half) ?? 1;
  }

  function start(root) {
    const inferno = colours(INFERNO);
    const diverging = colours(PURPLE_ORANGE);
    const part = (name) => root.querySelector(`[data-part="${name}"]`);
    const clone = (name) => part(name).content.firstElementChild.cloneNode(true);
    const state = { layer: "head", lam: 1, chosen: [] };
    let photograph = null; // all that is known of it: explained by class, maps that no λ changes, scores through maps
    let drawn = []; // what is on show, a row each
    let quiet;
    let frame = 0; // on its way to the screen

    function say(text, error = false) {
      part("status").textContent = error ? "" : text;
      part("error").textContent = error ? text : "";
      part("error").hidden = !error;
    }

    /** While something is under way, nothing can be saved, and a screen reader waits. */
    function busy(on) {
      part("results").setAttribute("aria-busy", String(on));
      part("save").disabled = on;
    }

    async function open(file) {
      if (!file) return;
      busy(true);
      try {
        say(`Reading ${file.name || "the picture"}…`);
        const { data, width, height, note } = await gradcamppPicture.read(file);
        const bytes = gradcamppPixels.square(data, width, height);
        const planes = gradcamppPixels.planes(bytes);
        const grey = Float64Array.from({ length: CROP * CROP }, (_, i) =>
          Math.round(0.299 * bytes[3 * i] + 0.587 * bytes[3 * i + 1] + 0.114 * bytes[3 * i + 2]),
        );
        say(worker ? "The network looks at it…" : "Fetching the network (33 MB, once)…");
        const opened = { name: file.name, bytes, planes, grey, explained: new Map(), fixed: new Map(), through: new Map() };
        opened.scores = await classify(planes);
        photograph = opened;
        const five = best(opened.scores, 5);
        photograph.offered = [...new Set([...five, ...state.chosen])]; // a link may ask for others
        state.chosen = state.chosen.length && linked ? state.chosen : [five[0]];
        linked = false;
        paint(part("seen"), CROP, (i) => bytes.subarray(3 * i, 3 * i + 3));
        part("seen").setAttribute("aria-label", `The central square of ${file.name || "the picture"}; first guess: ${classes[five[0]]}`);
        part("main").hidden = false;
        part("results").dataset.chosen = ""; // percentages are those of the photograph before
        controls();
        await show();
        say([`${file.name || "The picture"}: ${classes[five[0]]}, ${percent(opened.scores[five[0]])}.`, note].join(" "));
      } catch (error) {
        say(error.message, true);
        if (photograph) show(); // the one before stays
      }
    }

    /** Photographs that came with the book, each with whose it is. */
    function offer() {
      for (const { file, title, credit, thumbnail } of samples) {
        const button = Object.assign(document.createElement("button"), { type: "button", className: "gp-button", title: credit });
        const source = `data:image/jpeg;base64,${thumbnail}`;
        button.append(Object.assign(document.createElement("img"), { src: source, alt: "", width: 56, height: 56 }), title);
        button.addEventListener("click", async () => {
          const answer = await fetch(new URL(`samples/${file}`, folder));
          await open(new File([await answer.blob()], file));
        });
        part("samples").append(button);
      }
      const note = Object.assign(document.createElement("p"), { className: "gx-note" });
      note.textContent = samples.map(({ credit }) => credit).join("; ");
      part("samples").append(note);
      part("samples").hidden = samples.length === 0;
    }

    function options(fieldset, type, list, chosen, choose) {
      fieldset.replaceChildren(
        fieldset.querySelector("legend"),
        ...list.map(({ value, text, note }) => {
          const label = document.createElement("label");
          const input = Object.assign(document.createElement("input"), { type, name: `gp-${fieldset.dataset.part}`, value });
          input.checked = chosen.includes(value);
          input.addEventListener("change", () => choose(value, input.checked));
          const caption = Object.assign(document.createElement("span"), { textContent: text });
          caption.append(Object.assign(document.createElement("small"), { textContent: note }));
          label.append(input, caption);
          return label;
        }),
      );
    }

    function controls() {
      const offered = photograph.offered.map((value) => ({ value, text: classes[value], note: percent(photograph.scores[value]) }));
      options(part("classes"), "checkbox", offered, state.chosen, (label, on) => {
        const rest = state.chosen.filter((other) => other !== label);
        if (on) state.chosen = [...rest, label].slice(-MOST); // the one chosen first gives way
        else if (rest.length) state.chosen = rest;
        for (const input of part("classes").querySelectorAll("input")) input.checked = state.chosen.includes(Number(input.value));
        show();
      });
      const list = Object.entries(LAYERS).map(([value, words]) => ({ value, ...words }));
      options(part("layers"), "radio", list, [state.layer], (layer) => {
        state.layer = layer;
        show();
      });
    }

    /** Everything that follows from the choice. */
    async function show() {
      const current = photograph;
      if (!current) return;
      busy(true);
      try {
        for (const label of state.chosen) {
          if (!current.explained.has(label)) current.explained.set(label, await explain(current.planes, label));
        }
        if (current !== photograph || !state.chosen.every((label) => current.explained.has(label))) return; // the reader has gone on
        draw();
      } catch (error) {
        say(error.message, true);
      }
    }

    const key = ({ label, scores, layer }, method, lam) => [label, layer, scores, method, method === "gradcam++" ? lam : ""].join();

    function draw() {
      part("lam").value = positionFor(state.lam);
      part("lam").setAttribute("aria-valuetext", state.lam === Infinity ? "infinity" : words(state.lam));
      part("lam-value").textContent = `λ = ${words(state.lam)}`;
      part("layer-note").textContent = NOTES[state.layer];
      for (const button of root.querySelectorAll("[data-lam]")) {
        button.setAttribute("aria-pressed", String(Number(button.dataset.lam) === state.lam));
      }
      const wanted = state.chosen.join();
      if (part("results").dataset.chosen !== wanted) {
        part("results").replaceChildren(...state.chosen.map(section));
        part("results").dataset.chosen = wanted;
      }
      drawn = state.chosen.flatMap((label) => Object.keys(SCORES).map((scores) => row(label, scores)));
      captions();
      busy(true);
      clearTimeout(quiet);
      quiet = setTimeout(settle, QUIET);
    }

    /** The empty places of a class: two rows of four pictures. */
    function section(label) {
      const made = clone("result");
      made.querySelector("h2").textContent = `${classes[label]}: ${percent(photograph.scores[label])}`;
      for (const scores of Object.keys(SCORES)) {
        const line = clone("row");
        line.dataset.row = `${label},${scores}`;
        line.setAttribute("aria-label", `${classes[label]}, gradients ${SCORES[scores]}`);
        line.querySelector("h3").textContent = `Gradients ${SCORES[scores]}`;
        for (const title of [...Object.values(METHODS), "Grad-CAM++ minus Grad-CAM+"]) {
          const figure = clone("map");
          figure.querySelector("strong").textContent = title;
          line.querySelector(".gp-maps").append(figure);
        }
        made.append(line);
      }
      return made;
    }

    /** Compute and paint the maps of one class and one kind of score; returns them with their distances. */
    function row(label, scores) {
      const { layer, lam } = state;
      const explained = photograph.explained.get(label)[layer];
      const fixed = photograph.fixed;
      const computed = (method) => {
        if (method === "gradcam++") return map(explained, scores, method, lam);
        const name = key({ label, scores, layer }, method);
        if (!fixed.has(name)) fixed.set(name, map(explained, scores, method));
        return fixed.get(name);
      };
      const maps = Object.fromEntries(Object.keys(METHODS).map((method) => [method, computed(method)]));
      const [own, plus, family] = Object.values(maps).map(({ large }) => large);
      const place = root.querySelector(`[data-row="${label},${scores}"]`);
      const canvases = [...place.querySelectorAll("canvas")];
      const opacity = Number(part("opacity").value) / 100;
      Object.entries(maps).forEach(([method, { large }], i) => {
        const shown = [key({ label, scores, layer }, method, lam), opacity].join();
        if (canvases[i].dataset.shown === shown) return;
        canvases[i].dataset.shown = shown;
        paint(canvases[i], CROP, (at) => inferno(large[at]).map((value) => opacity * value + (1 - opacity) * photograph.grey[at]));
        canvases[i].setAttribute("aria-label", described(large, METHODS[method], label, scores));
      });
      const result = { label, scores, layer, lam, maps, fromPlus: distance(family, plus), gradcamFromPlus: distance(own, plus) };
      const half = span(result.fromPlus);
      paint(canvases[3], CROP, (at) => diverging(0.5 + (family[at] - plus[at]) / (2 * half)));
      canvases[3].setAttribute("aria-label", `Grad-CAM++ minus Grad-CAM+; the largest difference is ${number(result.fromPlus)}`);
      place.querySelector("figure:last-child span").textContent = `violet −${half}, orange +${half}`;
      place.querySelector(".gp-sentence").textContent =
        `At no pixel does Grad-CAM++ (λ = ${words(lam)}) differ from Grad-CAM+ by more than ${number(result.fromPlus)}, ` +
        `on a scale from 0 to 1; Grad-CAM does by up to ${number(result.gradcamFromPlus)}.`;
      return result;
    }

    function described(large, method, label, scores) {
      const top = large.reduce((most, value, i) => (value > large[most] ? i : most), 0);
      const where = place(Math.floor(top / CROP) / CROP, (top % CROP) / CROP);
      const said = large[top] > 0 ? `hottest ${where}` : "zero everywhere";
      return `${method} for ${classes[label]}, gradients ${SCORES[scores]}: ${said}`;
    }

    function captions() {
      for (const line of drawn) {
        const spans = root.querySelectorAll(`[data-row="${line.label},${line.scores}"] figcaption span`);
        Object.entries(line.maps).forEach(([method, { large }], i) => {
          const score = photograph.through.get(key(line, method, line.lam));
          const empty = large.some((value) => value > 0) ? "" : "zero everywhere; ";
          spans[i].textContent = `${empty}score ${score === undefined ? "…" : score.toFixed(4)}`;
        });
      }
    }

    /** The address follows the choice, and the network looks through every map that it has not looked through yet. */
    async function settle() {
      history.replaceState(history.state, "", address());
      const [current, lines] = [photograph, drawn];
      try {
        for (const line of lines) {
          const missing = Object.keys(METHODS).filter((method) => !current.through.has(key(line, method, line.lam)));
          if (!missing.length) continue;
          const larges = missing.map((method) => line.maps[method].large);
          const scores = await scoresThrough(current.planes, line.label, larges);
          missing.forEach((method, i) => current.through.set(key(line, method, line.lam), scores[i]));
          if (drawn !== lines) return; // the reader has gone on
          captions();
        }
        if (drawn === lines) busy(false);
      } catch (error) {
        say(error.message, true);
      }
    }

    // The address of the page holds the settings; the photograph is not in it.

    function address() {
      const lam = state.lam === Infinity ? "inf" : String(Number(state.lam.toPrecision(4)));
      return `#${new URLSearchParams({ layer: state.layer, lam, classes: state.chosen.join("-") })}`;
    }

    function addressed() {
      const wanted = new URLSearchParams(location.hash.slice(1));
      if (wanted.get("layer") in LAYERS) state.layer = wanted.get("layer");
      const lam = wanted.get("lam") === "inf" ? Infinity : Number(wanted.get("lam") ?? NaN);
      if (lam >= 0) state.lam = lamAt(positionFor(lam));
      const labels = (wanted.get("classes") ?? "").split("-").filter((text) => /^\d+$/.test(text)).map(Number);
      state.chosen = [...new Set(labels)].filter((label) => label < classes.length).slice(0, MOST);
      return state.chosen.length > 0;
    }

    let linked = addressed();

    async function copyLink() {
      const link = new URL(address(), location.href).href;
      try {
        await navigator.clipboard.writeText(link);
        say("The link is copied. It holds the settings, not the photograph.");
      } catch {
        say(`The link, which holds the settings and not the photograph: ${link}`);
      }
    }

    async function save() {
      const sheet = gradcamppSheet.compose({
        seen: part("seen"),
        heading: `${photograph.name || "Photograph"}: explained by EfficientNet-Lite0 at ${layers[state.layer]}, λ = ${words(state.lam)}`,
        rows: drawn.map(({ label, scores }) => {
          const line = root.querySelector(`[data-row="${label},${scores}"]`);
          const figures = [...line.querySelectorAll("figure")].map((figure) => ({
            canvas: figure.querySelector("canvas"),
            title: figure.querySelector("strong").textContent,
            text: figure.querySelector("span").textContent,
          }));
          const title = `${classes[label]} (${percent(photograph.scores[label])}), gradients ${SCORES[scores]}`;
          return { title, figures, sentence: line.querySelector(".gp-sentence").textContent };
        }),
        footer: [
          `gradcampp ${version}. Score: softmax score of the class for the explanation map (eq. 15).`,
          "Cite: Lerma, M. and Lucas, M. (2022). Grad-CAM++ is Equivalent to Grad-CAM With Positive Gradients. arXiv:2205.10838.",
        ],
      });
      const blob = await new Promise((resolve) => sheet.toBlob(resolve, "image/png"));
      const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: "gradcampp.png" });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    }

    function move(lam) {
      state.lam = lam;
      busy(true);
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        show();
      });
    }

    part("lam").max = LAST;
    part("lam").addEventListener("input", () => move(lamAt(Number(part("lam").value))));
    for (const button of root.querySelectorAll("[data-lam]")) button.addEventListener("click", () => move(Number(button.dataset.lam)));
    part("opacity").addEventListener("input", () => photograph && draw());
    part("save").addEventListener("click", save);
    part("link").addEventListener("click", copyLink);
    for (const name of ["file", "camera"]) {
      part(name).addEventListener("change", ({ target }) => {
        open(target.files[0]);
        target.value = ""; // the same file can be chosen again
      });
    }
    addEventListener("dragover", (event) => {
      event.preventDefault();
      part("drop").classList.add("gp-over");
    });
    for (const end of ["dragleave", "drop"]) addEventListener(end, () => part("drop").classList.remove("gp-over"));
    addEventListener("drop", (event) => {
      event.preventDefault(); // else the browser would leave the page for the file
      open(event.dataTransfer.files[0]);
    });
    addEventListener("paste", (event) => open(event.clipboardData?.files[0]));
    if (location.protocol === "file:") {
      say(
        "Opened from a file, this page may not start the network. Serve the folder of the book, " +
          "python -m http.server, and open http://localhost:8000",
        true,
      );
    } else if (typeof WebAssembly === "undefined") say("This browser has no WebAssembly, which the network needs.", true);
    else {
      part("drop").hidden = false;
      offer();
    }
    return { shown: () => ({ ...state, scores: photograph?.scores, bytes: photograph?.bytes, rows: drawn, through: photograph?.through }) };
  }

  return { start, classify, explain, scoresThrough, map, softmax, best };
})();

Object.assign(gradcamppPhotograph, gradcamppPhotograph.start(document.getElementById("gradcampp-photograph")));
