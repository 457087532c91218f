/* The pictures of the explorer: what export.py has written of them, and what their alphas and channels do.
 *
 * Everything is computed in float64. Equations are those of Lerma & Lucas (2022).
 */
"use strict";

const gradcamppExplorer = (() => {
  const { compute, difference, unit, upsample, weights } = gradcamppMaps;

  // --- mathematics: a choice is {label, scores, method, lam}; label counts the classes of the scene ----------------------

  /** Values of an array as book/explorer/export.py writes it, zeros included: a Float64Array of the given length. */
  function decode(array, length) {
    const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const mask = bytes(array.mask);
    const values = new DataView(bytes(array.values).buffer);
    const { each } = array; // units that share a value
    const all = new Float64Array(length);
    for (let i = 0, next = 0; i < length / each; i++) {
      if (mask[i >> 3] & (0x80 >> (i & 7))) {
        all.fill(values.getFloat32(next, true), i * each, (i + 1) * each);
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

  /** An alpha that counts, 1 / (2 + lam * s * g) with g > 0: in [0, 1/2], and 0 at lam = infinity. */
  function tame(lam, s, g) {
    return s * g > 0 ? 1 / (2 + lam * s * g) : 0.5;
  }

  /** The alphas that count, of all units with positive gradient: sorted. */
  function alphas(scene, { label, scores, lam }) {
    const found = [];
    scene.gradients[label][scores].forEach((g, i) => {
      if (g > 0) found.push(tame(lam, scene.sums[Math.floor(i / scene.units)], g));
    });
    return Float64Array.from(found).sort();
  }

  /** {least, most}: the part of its Grad-CAM+ weight that a channel loses; null where no channel has one. */
  function shrinkage(scene, choice) {
    const plus = weights(scene, { ...choice, method: "gradcam++", lam: 0 });
    const kept = [...weights(scene, { ...choice, method: "gradcam++" })]
      .map((weight, k) => weight / plus[k])
      .filter((_, k) => scene.sums[k] > 0 && plus[k] > 0);
    if (!kept.length) return null;
    return choice.lam === Infinity ? { least: 1, most: 1 } : { least: 1 - Math.max(...kept), most: 1 - Math.min(...kept) };
  }

  // --- data: a script for each scene, so that a page opened from disk can load it as well ---------------------------------

  const folder = new URL(".", document.currentScript.src);
  const received = new Map();
  const loading = new Map();
  const listing = [];

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

  return {
    ...{ decode, prepare, compute, tame, alphas, shrinkage, difference, unit, upsample, load, scene, listing },
    listScenes: (scenes) => listing.push(...scenes),
    addScene: (data) => received.set(data.name, data),
  };
})();
