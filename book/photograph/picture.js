/* Files that a reader brings: decoded by the browser, or refused in one line. */
"use strict";

const gradcamppPicture = (() => {
  const LIMIT = 40e6; // pixels; decoded, each takes four bytes, twice

  const KINDS = [
    // name, place of the bytes that tell it, those bytes as text
    ["JPEG", 0, "\xff\xd8\xff"],
    ["PNG", 0, "\x89PNG"],
    ["GIF", 0, "GIF8"],
    ["WebP", 8, "WEBP"],
    ["AVIF", 4, "ftypavif"],
    ["HEIC", 4, "ftyphei"],
    ["HEIC", 4, "ftyphev"],
    ["HEIC", 4, "ftypmif1"],
    ["TIFF", 0, "II*\0"],
    ["TIFF", 0, "MM\0*"],
    ["BMP", 0, "BM"],
  ];

  /** The kind of file that its first bytes say, whatever its name; null for none that is known. */
  function kind(bytes) {
    const text = String.fromCharCode(...bytes);
    return KINDS.find(([, place, said]) => text.startsWith(said, place))?.[0] ?? null;
  }

  /** Why the browser could not read a file, in one line. */
  function refusal(name, found, size) {
    if (size === 0) return `${name} is empty.`;
    if (found === "HEIC")
      return `${name} is a HEIC file, which this browser cannot read. Save it as JPEG and choose that (an iPhone takes JPEG under Settings, Camera, Formats, Most Compatible).`;
    if (found === "TIFF") return `${name} is a TIFF file, which this browser cannot read. Save it as JPEG or PNG and choose that.`;
    if (found) return `${name} is damaged: the browser cannot read it as ${found}.`;
    return `${name} is not a picture that this browser can read. JPEG, PNG, WebP and AVIF are.`;
  }

  /** Width and height of a picture, read before its pixels are decoded. */
  async function dimensions(file) {
    const address = URL.createObjectURL(file);
    try {
      const image = new Image();
      await new Promise((resolve, reject) => Object.assign(image, { onload: resolve, onerror: reject, src: address }));
      return [image.naturalWidth, image.naturalHeight];
    } finally {
      URL.revokeObjectURL(address);
    }
  }

  /** RGBA bytes of a file, upright and in its own colours: {data, width, height, note}. An Error says why not. */
  async function read(file) {
    const name = file.name || "The picture";
    const found = kind(new Uint8Array(await file.slice(0, 16).arrayBuffer()));
    let width, height, bitmap;
    try {
      [width, height] = await dimensions(file);
    } catch {
      throw new Error(refusal(name, found, file.size));
    }
    if (width * height > LIMIT)
      throw new Error(
        `${name} has ${Math.round((width * height) / 1e6)} megapixels (${width} × ${height}); at most ${LIMIT / 1e6} are read. Make it smaller: the network sees 224 × 224 of them.`,
      );
    try { // the colours as they are stored, as Pillow reads them; an old browser knows no such options
      const asStored = { imageOrientation: "from-image", colorSpaceConversion: "none" };
      bitmap = await createImageBitmap(file, asStored).catch(() => createImageBitmap(file));
    } catch {
      throw new Error(refusal(name, found, file.size));
    }
    ({ width, height } = bitmap);
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "#fff"; // below what is transparent
    context.fillRect(0, 0, width, height);
    context.drawImage(bitmap, 0, 0);
    bitmap.close();
    const { data } = context.getImageData(0, 0, width, height);
    return { data, width, height, note: found === "GIF" ? "Of a GIF the first frame is explained." : "" };
  }

  return { read, kind, LIMIT };
})();
