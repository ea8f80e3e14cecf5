// The model: about.json, model.onnx and ONNX Runtime Web, all from this folder.

import * as ort from "./ort.wasm.bundle.min.mjs";
import { decode, preprocess } from "./preprocess.js";

ort.env.wasm.numThreads = 1;  // more need headers that static hosts do not send
ort.env.wasm.wasmPaths = { wasm: new URL("./ort-wasm-simd-threaded.wasm", import.meta.url).href };

/** Load the model once. */
export async function load() {
  const about = await (await fetch("./about.json")).json();
  const session = await ort.InferenceSession.create("./model.onnx", { executionProviders: ["wasm"] });
  return { about, session };
}

/** Answer a decoded image: {probabilities, distance}. */
export async function answer({ about, session }, image) {
  const { height, width } = about.preprocess;
  const pixels = new ort.Tensor("uint8", preprocess(image, about.preprocess), [1, height, width, 3]);
  const result = await session.run({ pixels });
  return { probabilities: Array.from(result.probabilities.data), distance: result.distance.data[0] };
}

/** Answer an image file. */
export async function answerFile(model, file) {
  return answer(model, await decode(file));
}

/** What an answer means: classes, best first, the prediction set, and whether the image is none of the classes. The
 * set is null where none was measured.
 * Of several labels an image `holds` are those that it has, and `further` those that it could have besides. */
export function explain({ about }, { probabilities, distance }) {
  const order = probabilities.map((_, i) => i).sort((a, b) => probabilities[b] - probabilities[a]);
  const rejected = about.reject_threshold !== null && distance > about.reject_threshold;
  if (about.label_thresholds) {
    const holds = order.filter((i) => probabilities[i] >= about.label_thresholds.thresholds[i]);
    // A label of which nothing can be promised is in every set, and named for none.
    const isInSet = (i) => about.set_thresholds[i] > 0 && probabilities[i] >= about.set_thresholds[i];
    return { order, holds, further: order.filter((i) => isInSet(i) && !holds.includes(i)), rejected };
  }
  const scores = about.decision ? decide(about.decision.matrix, probabilities) : probabilities;
  const best = scores.indexOf(Math.max(...scores));
  return {
    best,
    order: [best, ...order.filter((i) => i !== best)],
    set: about.measured === false ? null : order.filter((i) => i === order[0] || probabilities[i] >= about.set_thresholds[i]),
    rejected,
  };
}

function decide(matrix, probabilities) {
  return matrix[0].map((_, column) => probabilities.reduce((sum, p, row) => sum + p * matrix[row][column], 0));
}
