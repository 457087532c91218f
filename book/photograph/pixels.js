/* From a decoded photograph to what the network sees, pixel for pixel as Pillow and torchvision do it in Python:
 * the shorter side to 256 by bicubic convolution, then the central square of 224.
 */
"use strict";

const gradcamppPixels = (() => {
  const RESIZE = 256;
  const CROP = 224;
  const PRECISION_BITS = 22; // of Pillow's weights, which are integers

  /** Keys' cubic with a = -1/2, 0 beyond 2. */
  function bicubic(x) {
    const a = -0.5;
    const distance = Math.abs(x);
    if (distance < 1) return ((a + 2) * distance - (a + 3)) * distance * distance + 1;
    return distance < 2 ? (((distance - 5) * distance + 8) * distance - 4) * a : 0;
  }

  /** For each of the pixels first, first + 1, ... of a side that is resized: the first pixel that it sees, and the weights. */
  function windows(length, resized, first, count) {
    const scale = length / resized;
    const stretch = Math.max(scale, 1); // where it shrinks, the filter grows: no aliasing
    return Array.from({ length: count }, (_, i) => {
      const centre = (first + i + 0.5) * scale;
      const start = Math.max(0, Math.trunc(centre - 2 * stretch + 0.5));
      const end = Math.min(length, Math.trunc(centre + 2 * stretch + 0.5));
      const inverse = 1 / stretch;
      const exact = Array.from({ length: end - start }, (_, j) => bicubic((j + start - centre + 0.5) * inverse));
      const sum = exact.reduce((total, weight) => total + weight, 0);
      const weights = exact.map((weight) => Math.trunc((weight / sum) * 2 ** PRECISION_BITS + (weight / sum < 0 ? -0.5 : 0.5)));
      return { start, weights: Int32Array.from(weights) };
    });
  }

  /** Half goes to the even neighbour, as Python rounds. */
  function round(value) {
    const below = Math.floor(value);
    return value - below === 0.5 ? below + (below % 2) : Math.round(value);
  }

  /** Both sides after the resizing, and where the square begins: {width, height, left, top}. */
  function geometry(width, height) {
    const long = Math.trunc((RESIZE * Math.max(width, height)) / Math.min(width, height));
    const [across, down] = width < height ? [RESIZE, long] : [long, RESIZE];
    return { width: across, height: down, left: round((across - CROP) / 2), top: round((down - CROP) / 2) };
  }

  function clipped(sum) {
    return Math.min(Math.max((sum + 2 ** (PRECISION_BITS - 1)) >> PRECISION_BITS, 0), 255);
  }

  /** The central square: bytes of red, green and blue, row by row. data: RGBA bytes of width x height pixels. */
  function square(data, width, height) {
    const size = geometry(width, height);
    const columns = windows(width, size.width, size.left, CROP);
    const rows = windows(height, size.height, size.top, CROP);
    const top = rows[0].start;
    const seen = rows[CROP - 1].start + rows[CROP - 1].weights.length - top; // source rows that the square depends on
    const narrow = new Uint8Array(seen * CROP * 3);
    for (let y = 0, at = 0; y < seen; y++) {
      for (const { start, weights } of columns) {
        let [red, green, blue] = [0, 0, 0];
        for (let j = 0, from = 4 * ((y + top) * width + start); j < weights.length; j++, from += 4) {
          red += weights[j] * data[from];
          green += weights[j] * data[from + 1];
          blue += weights[j] * data[from + 2];
        }
        narrow[at++] = clipped(red);
        narrow[at++] = clipped(green);
        narrow[at++] = clipped(blue);
      }
    }
    const result = new Uint8Array(CROP * CROP * 3);
    rows.forEach(({ start, weights }, y) => {
      for (let x = 0; x < CROP * 3; x++) {
        let sum = 0;
        for (let j = 0; j < weights.length; j++) sum += weights[j] * narrow[(start - top + j) * CROP * 3 + x];
        result[y * CROP * 3 + x] = clipped(sum);
      }
    });
    return result;
  }

  /** Bytes of red, green and blue, row by row, as numbers in [0, 1], channel by channel. */
  function planes(bytes) {
    const count = bytes.length / 3;
    return Float32Array.from({ length: bytes.length }, (_, i) => bytes[3 * (i % count) + Math.floor(i / count)] / 255);
  }

  return { CROP, square, planes };
})();
