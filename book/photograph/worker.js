/* The network, beside the page: it answers {id, pixels, labels, wanted} with {id, outputs} or {id, error}. */
"use strict";

importScripts("ort.wasm.min.js");
ort.env.logLevel = "error";
ort.env.wasm.numThreads = 1; // more would need headers that a plain server does not send
ort.env.wasm.wasmPaths = new URL(".", self.location.href).href;

const session = ort.InferenceSession.create(new URL("lite0.onnx", self.location.href).href, {
  executionProviders: ["wasm"],
  logSeverityLevel: 3,
});
session.then(() => postMessage({ ready: true })).catch((error) => postMessage({ ready: false, error: String(error) }));

/** Outputs by name, for a batch of pixels (B, 3, size, size). */
async function answer({ pixels, labels, size, wanted }) {
  const feeds = {
    pixels: new ort.Tensor("float32", pixels, [labels.length, 3, size, size]),
    labels: new ort.Tensor("int64", BigInt64Array.from(labels, BigInt), [labels.length]),
  };
  const found = await (await session).run(feeds, wanted);
  return Object.fromEntries(wanted.map((name) => [name, found[name].data]));
}

let last = Promise.resolve(); // one run after the other
addEventListener("message", ({ data }) => {
  last = last
    .then(() => answer(data))
    .then((outputs) => postMessage({ id: data.id, outputs }))
    .catch((error) => postMessage({ id: data.id, error: String(error) }));
});
