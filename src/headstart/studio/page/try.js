// Try the model on an image or the camera, and keep what it got wrong.

import { answerView, sentence, verdict } from "../shared/answer.js";
import { request, wait } from "../shared/api.js";
import { Camera, whyNoCamera } from "../shared/camera.js";
import { announce, button, byId, make } from "../shared/dom.js";
import { makeClass } from "./classes.js";
import { adopt, attempt, isSeveral, post, refreshSoon, store, tell } from "./store.js";

const FRAME_SECONDS = 0.1;
const video = make("video", { muted: true, playsInline: true, "aria-label": "Camera" });
const camera = new Camera(video);
let last = null,
  url = "",
  drawn = "";

/** Draw the panel once, and what depends on the state. */
export function showTry() {
  const panel = byId("try"),
    isReady = store.state.shows !== "none";
  const why = store.state.full.why || store.state.full.error || "";
  const key = JSON.stringify([isReady, store.state.classes.map(({ name }) => name), why]);
  if (key === drawn) return;
  drawn = key;
  if (!panel.firstChild) build(panel);
  byId("try-inputs").hidden = !isReady;
  byId("try-why").hidden = isReady;
  byId("try-why").textContent = `There is nothing to try yet. ${why}`;
  if (last) showWrong();
}

function build(panel) {
  const field = make("input", { type: "file", accept: "image/*", id: "try-file" });
  field.addEventListener("change", () => {
    tryFile(field.files[0]);
    field.value = "";
  });
  panel.replaceChildren(
    make("h2", {}, "Try it"),
    make("p", { className: "soft", id: "try-why" }),
    make(
      "div",
      { id: "try-inputs" },
      make(
        "div",
        { className: "row" },
        make("label", { className: "button primary" }, "Choose an image", field),
        button("Use the camera", toggleCamera, { id: "try-camera" }),
      ),
      make(
        "p",
        { className: "soft small" },
        "or drop an image here. It is not added, unless you say so below the answer.",
      ),
    ),
    make("div", { id: "try-note", className: "note", hidden: true }),
    make("div", { id: "try-media", className: "media" }),
    make("div", { id: "try-answer" }),
    make("div", { id: "try-wrong", hidden: true }),
  );
}

/** The answer of the server in the words of the shared view. */
const asAnswer = ({ probabilities, set, labels, could_have, none_of_these, coverage }) => ({
  predictions: probabilities,
  set,
  ...(labels && { labels, could_have }),
  none_of_these,
  coverage,
});

async function ask(file, { withMap }) {
  return request(`api/try${withMap ? "" : "?map=0"}`, {
    method: "POST",
    body: file,
    headers: { "Content-Type": file.type || "image/jpeg" },
    once: true,
  });
}

/** Try one image file. */
export async function tryFile(file) {
  if (!file) return;
  stopCamera();
  URL.revokeObjectURL(url);
  url = URL.createObjectURL(file);
  const picture = make("img", { src: url, alt: file.name ?? "the image" });
  picture.addEventListener("error", () =>
    picture.replaceWith(make("span", { className: "no-preview" }, "no preview in this browser")),
  );
  byId("try-media").replaceChildren(make("span", { className: "frame" }, picture));
  byId("try-answer").replaceChildren(make("p", { className: "soft" }, "Asking ..."));
  const answer = await attempt(() => ask(file, { withMap: true }));
  if (!answer) {
    byId("try-answer").replaceChildren();
    return;
  }
  showAnswer(answer);
  if (answer.map) showMap(answer.map, picture);
  announce(sentence(asAnswer(answer)));
}

function showMap(map, picture) {
  const own = picture.src;
  const toggle = button(
    "Where it looked",
    () => {
      const isOn = toggle.getAttribute("aria-pressed") === "true";
      toggle.setAttribute("aria-pressed", String(!isOn));
      picture.src = isOn ? own : map;
    },
    { "aria-pressed": "true" },
  );
  picture.src = map;
  byId("try-media").append(
    make(
      "div",
      { className: "row" },
      toggle,
      make(
        "span",
        { className: "small soft" },
        make("span", { className: "swatch for" }),
        " speaks for it, ",
        make("span", { className: "swatch against" }),
        " against it",
      ),
    ),
  );
}

function showAnswer(answer) {
  last = answer;
  byId("try-answer").replaceChildren(answerView(asAnswer(answer)));
  if (byId("try-wrong").hidden || (isSeveral() && !camera.isOn)) showWrong();
}

/** "This is wrong: add it to ...": one click for each class. */
function showWrong() {
  if (isSeveral()) {
    showWrongLabels();
    return;
  }
  const names = store.state.classes.map(({ name }) => name);
  const field = make("input", {
    placeholder: "a new class",
    maxLength: 100,
    id: "try-new",
    autocomplete: "off",
    required: true,
  });
  const form = make(
    "form",
    { className: "row" },
    make("label", { htmlFor: "try-new", className: "visually-hidden" }, "Name of a new class"),
    field,
    make("button", {}, "Add"),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (await makeClass(field.value.trim())) addLast(field.value.trim());
  });
  byId("try-wrong").replaceChildren(
    make("h3", {}, "Is this wrong? Add it to its class:"),
    make("div", { className: "row" }, ...names.map((name) => button(name, () => addLast(name)))),
    form,
  );
  byId("try-wrong").hidden = false;
}

/** The labels that were predicted, to be corrected before the image is added with them. */
function showWrongLabels() {
  const predicted = new Set(last.labels);
  const boxes = store.state.classes.map(({ name }, i) => {
    const box = make("input", { type: "checkbox", id: `try-label-${i}`, value: name, checked: predicted.has(name) });
    return [box, make("label", { htmlFor: box.id, className: "check" }, box, make("bdi", {}, name))];
  });
  const add = button("Add the image with these labels", () =>
    addLast(boxes.filter(([box]) => box.checked).map(([box]) => box.value)),
  );
  byId("try-wrong").replaceChildren(
    make("h3", {}, "Correct the labels, and add the image:"),
    make("div", { className: "row" }, ...boxes.map(([, label]) => label)),
    make("div", { className: "row" }, add),
    make("p", { className: "soft small" }, "Without any it is added as not labelled yet."),
  );
  byId("try-wrong").hidden = false;
}

/** Add the image to a class, or with a list of labels. */
async function addLast(given) {
  const answer = await attempt(() =>
    post(`api/try/${last.try}/add`, isSeveral() ? { labels: given } : { class: given }),
  );
  if (!answer) return;
  adopt(answer);
  const name = isSeveral() ? given.join(", ") || "the images that are not labelled" : given;
  const where = isSeveral() ? `as ${answer.labels?.join(", ") || "one without labels"}` : `in ${answer.label}`;
  tell(
    answer.added === false
      ? `The image is there already, ${where}.`
      : `Added to ${name}. The model learns from it now.`,
  );
  refreshSoon();
}

async function toggleCamera() {
  if (camera.isOn) {
    stopCamera();
    return;
  }
  const note = byId("try-note");
  const refuse = (lines) => {
    note.replaceChildren(...lines.map((line) => make("p", {}, line)));
    note.hidden = false;
    announce(lines.join(" "));
  };
  const reasons = whyNoCamera();
  if (reasons.length) {
    refuse(reasons);
    return;
  }
  try {
    await camera.start();
  } catch (error) {
    refuse([error.message]);
    return;
  }
  note.hidden = true;
  byId("try-camera").textContent = "Stop the camera";
  const look = button(
    "Where it looked",
    () => look.setAttribute("aria-pressed", String(look.getAttribute("aria-pressed") !== "true")),
    { "aria-pressed": "false" },
  );
  const map = make("img", { alt: "where it looked", hidden: true });
  const buttons = [look];
  if ((await camera.cameras()).length > 1) buttons.push(button("Other camera", () => attempt(() => camera.next())));
  byId("try-media").replaceChildren(
    make("span", { className: "frame" }, video, map),
    make("div", { className: "row" }, ...buttons),
  );
  await video.play();
  await tryFrames(look, map);
}

async function tryFrames(look, map) {
  let told = "",
    toldAt = 0;
  while (camera.isOn) {
    try {
      const file = await camera.frame();
      const withMap = look.getAttribute("aria-pressed") === "true";
      const answer = file && (await ask(file, { withMap }));
      if (!camera.isOn) break;
      if (answer) {
        showAnswer(answer);
        map.hidden = !answer.map;
        video.hidden = Boolean(answer.map);
        if (answer.map) map.src = answer.map;
        const words = verdict(asAnswer(answer));
        if (words !== told && Date.now() - toldAt > 1500) {
          announce(sentence(asAnswer(answer)));
          [told, toldAt] = [words, Date.now()];
        }
      }
    } catch (error) {
      if (error.status !== 503) tell(error.message, { isProblem: true });
      await wait(1);
    }
    await wait(FRAME_SECONDS);
  }
}

/** Stop asking about the camera; what was answered stays. */
export function stopCamera() {
  if (!camera.isOn) return;
  camera.stop();
  video.hidden = false;
  byId("try-camera").textContent = "Use the camera";
  byId("try-media").replaceChildren();
}
