/* What the page "Your own photograph" saves: one picture that says by itself what it shows. */
"use strict";

const gradcamppSheet = (() => {
  const SIDE = 224;
  const GAP = 16;
  const COLUMNS = 4;
  const WIDTH = COLUMNS * SIDE + (COLUMNS + 1) * GAP;
  const LINE = 22;

  /** A canvas with the photograph's square, rows of four maps with titles and scores, and the lines of the footer. */
  function compose({ seen, heading, rows, footer }) {
    const rowHeight = LINE * 4 + SIDE + GAP;
    const height = GAP + LINE + SIDE + GAP + rows.length * rowHeight + footer.length * LINE + GAP;
    const canvas = Object.assign(document.createElement("canvas"), { width: WIDTH, height });
    const context = canvas.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, WIDTH, height);
    const write = (text, x, y, style = "", width = WIDTH - 2 * GAP) => {
      context.fillStyle = "#222";
      context.font = `${style} 14px sans-serif`;
      context.fillText(text, x, y, width);
    };
    let y = GAP + LINE / 2;
    write(heading, GAP, y, "bold");
    y += LINE / 2;
    context.drawImage(seen, GAP, y, SIDE, SIDE);
    y += SIDE + GAP + LINE / 2;
    for (const { title, figures, sentence } of rows) {
      write(title, GAP, y, "bold");
      figures.forEach(({ canvas: map, title: name, text }, i) => {
        const x = GAP + i * (SIDE + GAP);
        context.drawImage(map, x, y + LINE / 2, SIDE, SIDE);
        write(name, x, y + SIDE + 1.25 * LINE, "", SIDE);
        write(text, x, y + SIDE + 2.1 * LINE, "", SIDE);
      });
      write(sentence, GAP, y + SIDE + 3.1 * LINE);
      y += rowHeight;
    }
    footer.forEach((text, i) => write(text, GAP, y + i * LINE));
    return canvas;
  }

  return { compose };
})();
