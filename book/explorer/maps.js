/* Class activation maps, their colours and the scale of lambda, for every page of the book that computes them in the browser.
 *
 * Equations are those of Lerma & Lucas (2022). What a map is computed from, here called scene, has: channels, rows, columns and
 * units (rows x columns) of its feature maps; activations (a value for each unit of each channel); sums of every channel;
 * gradients[label][scores], of the shape of the activations; size, the pixels a side of the picture. A choice is
 * {label, scores, method, lam}.
 */
"use strict";

const gradcamppMaps = (() => {
  /** What a unit with gradient g adds to the weight of its channel: eq. 1 ("gradcam"), eq. 3 ("gradcam+"), or eq. 4 with the
   * alphas of eq. 12 ("gradcam++").
   *
   * At lam = infinity this is the limit of lam * alpha * g, which is 1 / s. A channel with s = 0 has no such limit and no
   * activation either: it counts for nothing.
   */
  function part({ units }, { method, lam }, s, g) {
    if (method === "gradcam") return g / units;
    if (!(g > 0)) return 0;
    if (method === "gradcam+") return g / units;
    if (lam === Infinity) return s > 0 ? 1 / s : 0;
    return g / (2 + lam * s * g);
  }

  /** Channel weights of a choice; at lam = infinity n_k / s_k, with n_k the number of units with positive gradient. */
  function weights(scene, choice) {
    const gradients = scene.gradients[choice.label][choice.scores];
    return Float64Array.from(scene.sums, (s, channel) => {
      let weight = 0;
      for (let i = channel * scene.units; i < (channel + 1) * scene.units; i++) weight += part(scene, choice, s, gradients[i]);
      return weight;
    });
  }

  /** Alpha of a unit, eq. 12, and 0 where the gradient is; at lam = infinity the limit of lam * alpha. */
  function alpha(lam, s, g) {
    if (g === 0) return 0;
    return lam === Infinity ? 1 / (s * g) : 1 / (2 + lam * s * g);
  }

  /** Eq. 2, then the min-max stretching to [0, 1] in which a constant map becomes zeros. */
  function maps(scene, channelWeights) {
    const raw = new Float64Array(scene.units);
    channelWeights.forEach((weight, channel) => {
      for (let i = 0; i < scene.units; i++) raw[i] += weight * scene.activations[channel * scene.units + i];
    });
    raw.forEach((value, i) => (raw[i] = Math.max(0, value)));
    const low = raw.reduce((a, b) => Math.min(a, b));
    const high = raw.reduce((a, b) => Math.max(a, b));
    return { raw, heat: raw.map((value) => (high === low ? 0 : (value - low) / (high - low))) };
  }

  /** Weights and maps of a choice: {weights, raw, heat}. */
  function compute(scene, choice) {
    const channelWeights = weights(scene, choice);
    return { weights: channelWeights, ...maps(scene, channelWeights) };
  }

  /** A unit of a channel under a choice: activation a, gradient g and sum s of its channel, its alpha, the part that it adds to
   * the channel's weight, that weight, what the channel adds to the map at this unit, and the map there before its ReLU (L).
   */
  function unit(scene, choice, channel, place) {
    const i = channel * scene.units + place;
    const [a, g, s] = [scene.activations[i], scene.gradients[choice.label][choice.scores][i], scene.sums[channel]];
    const channelWeights = weights(scene, choice);
    const added = Array.from(channelWeights, (weight, k) => weight * scene.activations[k * scene.units + place]);
    return {
      ...{ channel, place, a, g, s, alpha: alpha(choice.lam, s, g), part: part(scene, choice, s, g) },
      ...{ weight: channelWeights[channel], contribution: added[channel], map: added.reduce((all, one) => all + one, 0) },
    };
  }

  /** The channel that adds most to a map at a unit, whatever its sign. */
  function strongest(scene, channelWeights, place) {
    const added = (k) => Math.abs(channelWeights[k] * scene.activations[k * scene.units + place]);
    return [...scene.sums.keys()].reduce((best, k) => (added(k) > added(best) ? k : best), 0);
  }

  /** The largest difference at any unit of the min-max maps of a choice and of Grad-CAM+; enlarging makes it no larger. */
  function difference(scene, choice) {
    return distance(compute(scene, choice).heat, compute(scene, { ...choice, method: "gradcam+" }).heat);
  }

  /** Bilinear enlargement of a coarse map to size x size pixels, as PyTorch's align_corners=False does it. */
  function upsample(scene, heat) {
    const { rows, columns, size } = scene;
    const axis = (length) =>
      Array.from({ length: size }, (_, pixel) => {
        const place = Math.max(0, ((pixel + 0.5) * length) / size - 0.5);
        const first = Math.min(Math.floor(place), length - 1);
        return [first, Math.min(first + 1, length - 1), place - first];
      });
    const across = axis(columns);
    const large = new Float64Array(size * size);
    axis(rows).forEach(([top, bottom, down], y) => {
      across.forEach(([left, right, over], x) => {
        const mix = (row) => heat[row * columns + left] * (1 - over) + heat[row * columns + right] * over;
        large[y * size + x] = mix(top) * (1 - down) + mix(bottom) * down;
      });
    });
    return large;
  }

  /** The largest absolute difference of two arrays. */
  function distance(one, other) {
    return one.reduce((most, value, i) => Math.max(most, Math.abs(value - other[i])), 0);
  }

  // --- lambda on a slider, and numbers in words ---------------------------------------------------------------------------

  const STEPS_A_DECADE = 20;
  const DECADES = [-2, 6]; // of the finite values of lam; positions 0 and LAST are 0 and infinity
  const LAST = STEPS_A_DECADE * (DECADES[1] - DECADES[0]) + 2;

  function lamAt(position) {
    if (position <= 0) return 0;
    return position >= LAST ? Infinity : 10 ** (DECADES[0] + (position - 1) / STEPS_A_DECADE);
  }

  function positionFor(lam) {
    if (!(lam > 0)) return 0;
    const place = Math.round((Math.log10(lam) - DECADES[0]) * STEPS_A_DECADE) + 1;
    return lam === Infinity ? LAST : Math.min(Math.max(place, 1), LAST - 1);
  }

  function words(lam) {
    return lam === Infinity ? "∞" : Number(lam.toPrecision(2)).toLocaleString("en", { maximumFractionDigits: 4 });
  }

  function percent(share) {
    return share > 0 && share < 0.01 ? "less than 1 %" : `${Math.round(100 * share)} %`;
  }

  /** One of nine places of a picture in words. */
  function place(down, right) {
    const row = ["upper", "", "lower"][Math.floor(down * 3)];
    const column = ["left", "", "right"][Math.floor(right * 3)];
    if (row && column) return `at the ${row} ${column}`;
    if (row) return row === "upper" ? "at the top" : "at the bottom";
    return column ? `at the ${column}` : "in the middle";
  }

  // --- colours ------------------------------------------------------------------------------------------------------------

  const INFERNO =
    "000004 0b0724 210c4a 3d0965 57106e 71196e 8a226a a32c61 bc3754 d24644 e45a31 f1731d f98e09 fcac11 f9cb35 f2ea69 fcffa4";
  const PURPLE_ORANGE =
    "2d004b 451871 5f3a91 7b6aa8 9990bf b7b1d5 cfcfe5 e4e5f0 f7f7f6 fce8cd fed59f fdbc6b ee9b39 d97b12 bd6109 9e4c07 7f3b08";

  function colours(anchors) {
    const table = anchors.split(" ").map((hex) => [0, 2, 4].map((start) => parseInt(hex.slice(start, start + 2), 16)));
    return (value) => {
      const place = Math.min(Math.max(value, 0), 1) * (table.length - 1);
      const first = Math.min(Math.floor(place), table.length - 2);
      const [low, high, part] = [table[first], table[first + 1], place - first];
      return [low[0] + part * (high[0] - low[0]), low[1] + part * (high[1] - low[1]), low[2] + part * (high[2] - low[2])];
    };
  }

  /** Fill a canvas of size x size pixels; colour gives red, green and blue of the pixel with a number. */
  function paint(canvas, size, colour) {
    if (canvas.width !== size) Object.assign(canvas, { width: size, height: size });
    const context = canvas.getContext("2d");
    const image = context.createImageData(size, size);
    for (let i = 0; i < size * size; i++) {
      const [red, green, blue] = colour(i);
      image.data[4 * i] = red;
      image.data[4 * i + 1] = green;
      image.data[4 * i + 2] = blue;
      image.data[4 * i + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }

  const mathematics = { weights, alpha, compute, unit, strongest, difference, upsample, distance };
  const language = { LAST, lamAt, positionFor, words, percent, place };
  return { ...mathematics, ...language, colours, INFERNO, PURPLE_ORANGE, paint };
})();
