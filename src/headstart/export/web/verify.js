// Answers the images that `headstart` serves on this machine, and sends the answers back, until there are no more.
import { load, answerFile } from "./model.js";
import * as ort from "./ort.wasm.bundle.min.mjs";

async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    return { error: String((error && error.message) || error) };
  }
}

async function bytes(job, index) {
  return (await fetch(`/job/${job}/${index}`)).blob();
}

async function answerPixels({ about, session }, blob) {
  const { height, width } = about.preprocess;
  const pixels = new ort.Tensor("uint8", new Uint8Array(await blob.arrayBuffer()), [1, height, width, 3]);
  const result = await session.run({ pixels });
  return { probabilities: Array.from(result.probabilities.data), distance: result.distance.data[0] };
}

const model = await attempt(load);
for (;;) {
  const { job, count, pixels, wait, done } = await (await fetch("/next")).json();
  if (done) break;
  if (wait) continue;
  const answers = [];
  for (let i = 0; i < count; i++) {
    answers.push(model.error ? model : await attempt(async () => {
      const blob = await bytes(job, i);
      return pixels ? answerPixels(model, blob) : answerFile(model, blob);
    }));
  }
  await fetch(`/answers/${job}`, { method: "POST", body: JSON.stringify(answers) });
}
