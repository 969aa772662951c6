// The network, in a worker of its own, so that the page does not freeze while a large network runs.
//
// input:  {id, file}; the page has checked the size of the image
// output: {id, pixels: uint8 [S * S * 3], outputs: {name: {dims, data: float32}}}, or {id, unreadable: true} for a file
//         that is no image, or {failed: reason} where the network cannot run in this browser

import * as ort from "./vendor/ort.wasm.bundle.min.mjs";
import { evaluationView, plainImage } from "./view.js";

const MOST_THREADS = 4;

ort.env.wasm.wasmPaths = { wasm: new URL("./vendor/ort-wasm-simd-threaded.wasm", import.meta.url).href };
// Half of the cores, because threads spin while they wait: when all cores are busy, one thread is faster than two.
const threads = Math.min(MOST_THREADS, Math.max(1, Math.floor(navigator.hardwareConcurrency / 2)));
ort.env.wasm.numThreads = self.crossOriginIsolated ? threads : 1;

const fetched = async (name) => {
  const response = await fetch(new URL(name, import.meta.url));
  if (!response.ok) throw new Error(`${name} was not found`);
  return response;
};

const facts = fetched("./facts.json").then((response) => response.json());
const network = fetched("./network.onnx")
  .then((response) => response.arrayBuffer())
  .then((bytes) => ort.InferenceSession.create(new Uint8Array(bytes), { executionProviders: ["wasm"] }));
network.catch((error) => self.postMessage({ failed: error.message }));

/** An ImageBitmap with the pixels of the file, without its colour profile and orientation. */
async function decode(file) {
  return createImageBitmap(await plainImage(file), { colorSpaceConversion: "none", premultiplyAlpha: "none" });
}

async function answer(file) {
  const { image_size: size, eval_resize: resize } = await facts;
  let pixels;
  try {
    const bitmap = await decode(file);
    pixels = evaluationView(bitmap, { size, resize });
    bitmap.close();
  } catch {
    return { unreadable: true };
  }
  const session = await network;
  const tensors = await session.run({ images: new ort.Tensor("uint8", pixels, [1, size, size, 3]) });
  const outputs = Object.entries(tensors).map(([name, { dims, data }]) => [name, { dims, data }]);
  return { pixels, outputs: Object.fromEntries(outputs) };
}

let previous = Promise.resolve(); // images wait for each other, because a session cannot run twice at once
self.onmessage = ({ data: { id, file } }) => {
  previous = previous.then(async () => {
    try {
      self.postMessage({ id, ...(await answer(file)) });
    } catch (error) {
      self.postMessage({ failed: error.message });
    }
  });
};
