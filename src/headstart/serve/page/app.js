// The page of `headstart serve`: images in by file, drop, paste or camera; the answers of a model out.

import { request, RequestError, takeToken, wait } from "./api.js";
import { activationLegend, activationView, answerView, sentence, verdict } from "./answer.js";
import { Camera, whyNoCamera } from "./camera.js";
import { announce, button, byId, count, make, onFilesGiven, percent, plural } from "./dom.js";

const HISTORY = 24,
  AT_ONCE = 3,
  HEALTH_SECONDS = 10,
  LOADING_SECONDS = 1,
  FRAME_SECONDS = 0.15;
let models = [],
  limits = null,
  needsToken = false,
  showsMap = true,
  mapOf = "", // the label whose map is shown, where an image may have several
  shown = null;
const entries = []; // newest first: {file, url, answer, error, model}
const video = make("video", { muted: true, playsInline: true, "aria-label": "Camera" });
const camera = new Camera(video);

const model = () => models[Number(byId("model").value) || 0];
const path = (name) => (models.length > 1 ? `predict/${encodeURIComponent(name)}` : "predict");
const status = (text) => {
  byId("status").textContent = text;
};

/** The answer to an image file. */
async function predict(file, { once = false } = {}) {
  const { name, explains } = model();
  if (limits?.body_bytes && file.size > limits.body_bytes) {
    throw new RequestError(
      413,
      `The file is larger than the ${Math.round(limits.body_bytes / 2 ** 20)} MiB that the server reads.`,
    );
  }
  const type = file.type || "application/octet-stream";
  const query = explains ? "?full=1&explain=1" : "?full=1";
  const options = { method: "POST", body: file, headers: { "Content-Type": type }, once };
  const answer = await request(path(name) + query, options);
  return { ...answer, modelName: name };
}

/** An image that the browser may be unable to show, such as HEIC: then its name is shown. */
function preview(entry, alt) {
  const image = make("img", { src: entry.url, alt });
  image.addEventListener("error", () =>
    image.replaceWith(make("span", { className: "no-preview" }, "no preview in this browser")),
  );
  return image;
}

function showEntry(entry) {
  shown = entry;
  const frame = make("span", { className: "frame" }, preview(entry, entry.file.name || "image"));
  byId("media").replaceChildren(frame);
  if (entry.answer) addMaps(frame, entry.answer);
  const parts = [make("p", { className: "file" }, entry.file.name || "pasted image")];
  if (entry.answer) parts.push(answerView(entry.answer));
  else if (entry.error) parts.push(make("p", { className: "problem" }, entry.error));
  else parts.push(make("p", { className: "soft" }, "Asking ..."));
  byId("answer").replaceChildren(...parts);
  byId("current").hidden = false;
  byId("example").hidden = true;
}

/** The maps of an answer: of several labels one for each, and a button to show it. */
function addMaps(frame, { activation, activations }) {
  if (!activations) {
    addMap(frame, activation);
    return;
  }
  if (!activations.length) return;
  const row = make("div", { className: "row", role: "group", "aria-label": "Where it looked" });
  const draw = () => {
    frame.querySelector(".activation")?.remove();
    const shownMap = currentMap(activations);
    if (shownMap) frame.append(activationView(shownMap));
    const buttons = activations.map((one) =>
      button(
        one.positive,
        () => {
          showsMap = one !== shownMap;
          mapOf = one.positive;
          draw();
          row.querySelectorAll("button")[activations.indexOf(one)].focus();
        },
        { "aria-pressed": String(one === shownMap) },
      ),
    );
    const legend = shownMap ? [activationLegend(shownMap)] : [];
    row.replaceChildren(make("span", { className: "small soft" }, "Where it looked:"), ...buttons, ...legend);
  };
  draw();
  frame.after(row);
}

/** The map that is shown: that of the label chosen last, or of the first. */
function currentMap(activations) {
  return showsMap ? (activations.find(({ positive }) => positive === mapOf) ?? activations[0]) : undefined;
}

/** Where the network looked, over an image, with a button that hides it. */
function addMap(frame, activation) {
  if (!activation) return;
  const canvas = activationView(activation),
    legend = activationLegend(activation);
  const toggle = button("Where it looked", () => {
    showsMap = !showsMap;
    update();
  });
  const update = () => {
    canvas.hidden = legend.hidden = !showsMap;
    toggle.setAttribute("aria-pressed", String(showsMap));
  };
  frame.append(canvas);
  frame.after(make("div", { className: "row" }, toggle, legend));
  update();
}

function showHistory() {
  const older = entries.filter((entry) => entry !== shown);
  byId("earlier").hidden = !older.length;
  byId("history").replaceChildren(
    ...older.map((entry) => {
      const open = button("", () => {
        showEntry(entry);
        showHistory();
        byId("main").scrollIntoView();
      });
      const { answer, error } = entry;
      const said = answer ? verdict(answer) : error ? "no answer" : "...";
      const score = answer && !answer.labels && !answer.none_of_these ? percent(answer.predictions[0].score) : "";
      open.append(
        preview(entry, ""),
        make("strong", {}, said),
        make("span", { className: "soft" }, score),
        make("span", { className: "soft" }, entry.file.name || "pasted image"),
      );
      return make("li", {}, open);
    }),
  );
}

async function addFiles(files) {
  if (!models.length) return;
  if (camera.isOn) stopCamera();
  const added = files.map((file) => ({ file, url: URL.createObjectURL(file), answer: null, error: "" }));
  entries.unshift(...added);
  for (const dropped of entries.splice(Math.max(HISTORY, added.length))) URL.revokeObjectURL(dropped.url);
  showEntry(added[0]);
  showHistory();
  const waiting = [...added];
  let done = 0;
  const tellProgress = () => status(`${count(done)} of ${plural(added.length, "image")} answered.`);
  tellProgress();
  const worker = async () => {
    for (let entry = waiting.shift(); entry; entry = waiting.shift()) {
      try {
        entry.answer = await predict(entry.file);
      } catch (error) {
        entry.error = error.message;
      }
      done += 1;
      tellProgress();
      if (entry === shown) {
        showEntry(entry);
        announce(entry.answer ? `${entry.file.name || "Image"}: ${sentence(entry.answer)}` : entry.error);
      }
      showHistory();
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  if (added.length > 1) announce(`${plural(added.length, "image")} answered.`);
  readModels(); // the drift line counts them
}

function stopCamera() {
  camera.stop();
  byId("camera").textContent = "Use the camera";
  status("");
  if (entries.length) showEntry(shown ?? entries[0]);
  else byId("current").hidden = true;
}

async function toggleCamera() {
  if (camera.isOn) {
    stopCamera();
    return;
  }
  const reasons = whyNoCamera();
  if (reasons.length) {
    note("camera-note", reasons);
    return;
  }
  try {
    await camera.start();
  } catch (error) {
    note("camera-note", [error.message]);
    return;
  }
  byId("camera-note").hidden = true;
  byId("camera").textContent = "Stop the camera";
  byId("example").hidden = true;
  byId("current").hidden = false;
  const frame = make("span", { className: "frame" }, video);
  byId("media").replaceChildren(frame);
  byId("answer").replaceChildren();
  if ((await camera.cameras()).length > 1)
    frame.after(
      make(
        "div",
        { className: "row" },
        button("Other camera", () => camera.next()),
      ),
    );
  await video.play();
  await answerFrames(frame);
}

/** Ask about one frame after another until the camera is stopped; a change of class is told. */
async function answerFrames(frame) {
  let told = "",
    toldAt = 0;
  while (camera.isOn) {
    try {
      const file = await camera.frame();
      const answer = file && (await predict(file, { once: true }));
      if (!camera.isOn) break;
      if (answer) {
        byId("answer").replaceChildren(answerView(answer));
        frame.querySelector(".activation")?.remove();
        const map = answer.activations ? currentMap(answer.activations) : showsMap && answer.activation;
        if (map) frame.append(activationView(map));
        const said = verdict(answer);
        if (said !== told && Date.now() - toldAt > 1500) {
          announce(sentence(answer));
          told = said;
          toldAt = Date.now();
        }
        status("Live: every frame is asked about, none is kept.");
      }
    } catch (error) {
      status(error.message);
      if (error.status !== 503) await wait(1);
    }
    await wait(FRAME_SECONDS);
  }
}

/** Lines in a box that is shown; told to a screen reader. */
function note(id, lines) {
  byId(id).replaceChildren(...lines.map((line) => make("p", {}, line)));
  byId(id).hidden = !lines.length;
  if (lines.length) announce(lines.join(" "));
}

/** Whether the model is ready, and whether the images asked about are still like those that it learned from. */
function showDrift() {
  const current = model(),
    { drift } = current;
  for (const control of [byId("file"), byId("camera")]) control.disabled = current.ready === false;
  const hash = current.sha256 ? ` · model ${current.sha256.slice(0, 12)}` : "";
  const version = current.version ? ` ${current.version}` : "";
  const seen = drift?.images
    ? `${percent(drift.rejected / drift.images)} of the last ${plural(drift.images, "image")} ${drift.images === 1 ? "was" : "were"} ` +
      `${current.label_thresholds ? "unlike the training images" : "none of these"}; ` +
      `${percent(drift.expected)} are expected. `
    : "";
  const judgement = !drift?.images ? "No images asked about yet." : drift.is_alarm ? "" : "Nothing unusual.";
  const failure = current.error ? ` ${current.error}` : "";
  byId("health").textContent =
    `${current.name}${version}${hash} · ${current.ready === false ? "not ready" : "ready"}. ${seen}${judgement}${failure}`;
  const wasHidden = byId("drift").hidden;
  byId("drift").hidden = !drift?.is_alarm;
  if (!drift?.is_alarm) return;
  byId("drift").replaceChildren(
    make(
      "p",
      {},
      make("strong", {}, "These images are not like those that the model learned from."),
      ` ${seen}` + "Expect more mistakes than its accuracy says, and add images like these to its data.",
    ),
  );
  if (wasHidden) announce(byId("drift").textContent);
}

function showModel() {
  const { classes, name } = model();
  if (!classes) {
    byId("classes").textContent = "The model is not ready yet."; // the line at the end says why
    showDrift();
    return;
  }
  const names =
    classes.slice(0, 12).join(", ") + (classes.length > 12 ? ` and ${count(classes.length - 12)} more` : "");
  const ofLabels = Boolean(model().label_thresholds);
  byId("classes").textContent = ofLabels
    ? `This model says which of ${plural(classes.length, "label")} an image has, any number or none: ${names}.`
    : `This model distinguishes ${plural(classes.length, "class", "classes")}: ${names}.`;
  byId("title").textContent = ofLabels ? "Which labels does it have?" : "Which class is it?";
  byId("classes-seen").hidden = ofLabels;
  byId("labels-seen").hidden = !ofLabels;
  document.title = `${byId("title").textContent} Headstart`;
  const token = needsToken ? ' \\\n  -H "Authorization: Bearer $HEADSTART_TOKEN"' : "";
  byId("curl").textContent =
    `curl --data-binary @image.jpg -H 'Content-Type: image/jpeg'${token} \\\n  ${new URL(path(name), document.baseURI)}`;
  showDrift();
}

/** The models, again and again: one may be replaced while the page is open. */
async function readModels() {
  const answer = await request("models");
  const isSame =
    JSON.stringify(models.map((m) => [m.name, m.sha256])) ===
    JSON.stringify(answer.models.map((m) => [m.name, m.sha256]));
  ({ models, limits, needs_token: needsToken } = answer);
  if (isSame) {
    showDrift();
    return;
  }
  const chosen = byId("model").value;
  byId("model").replaceChildren(...models.map(({ name }, i) => make("option", { value: String(i) }, name)));
  if (Number(chosen) < models.length) byId("model").value = chosen || "0";
  byId("model-choice").hidden = models.length < 2;
  showModel();
}

async function main() {
  takeToken();
  byId("file").addEventListener("change", (event) => {
    addFiles([...event.target.files]);
    event.target.value = ""; // so that the same file can be chosen again
  });
  byId("camera").addEventListener("click", toggleCamera);
  byId("model").addEventListener("change", () => {
    showModel();
    if (shown && !camera.isOn) addFiles([shown.file]);
  });
  onFilesGiven(addFiles);
  for (;;) {
    try {
      await readModels();
      if (byId("status").classList.contains("problem")) status("");
      byId("status").classList.remove("problem");
    } catch (error) {
      status(error.message);
      byId("status").classList.add("problem");
    }
    await wait(models.length && !model().classes ? LOADING_SECONDS : HEALTH_SECONDS);
  }
}

main();
