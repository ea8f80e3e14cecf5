// Images in: files, drops, pastes, archives, and bursts of the camera, which go to the server three at a time.

import { request } from "../shared/api.js";
import { Camera, whyNoCamera } from "../shared/camera.js";
import { announce, button, byId, count, make, plural } from "../shared/dom.js";
import { chooseClass, makeClass } from "./classes.js";
import { view } from "./grid.js";
import { adopt, attempt, isSeveral, refreshSoon, store, tell } from "./store.js";

const AT_ONCE = 3,
  BACKLOG = 12,
  FRAME_MS = 125,
  LONGEST = 960,
  RECORD_SECONDS = 3;
const IMAGE = /\.(avif|bmp|gif|heic|heif|jpe?g|jxl|png|tiff?|webp)$/i;
const OF_THE_SYSTEM = /^(\..*|thumbs\.db|desktop\.ini)$/i; // what file managers leave in folders
const TYPES = { jpg: "jpeg", tif: "tiff" };
const waiting = [];
let running = 0,
  gathering = 0, // drops and choices whose files have not all been sent to where they belong
  batch = null,
  target = "",
  recording = null;
const video = make("video", { muted: true, playsInline: true, "aria-label": "Camera" });
const camera = new Camera(video);

/** What came of all that is added together: sentences of archives, counts of images, and what was left out. */
function current() {
  batch ??= { archives: [], total: 0, done: 0, added: 0, already: [], refused: [], classes: new Set() };
  return batch;
}

/** Add in one go, and tell what came of it at the end, once. */
async function together(action) {
  gathering += 1;
  try {
    await action();
  } finally {
    gathering -= 1;
    finish();
  }
}

/** Send images to a class; those of one `group` are never on both sides of a split. */
function send(files, className, group = "") {
  current();
  if (className) batch.classes.add(className);
  for (const file of files) {
    batch.total += 1;
    waiting.push({ file, className, group });
  }
  store.uploads += files.length;
  while (running < AT_ONCE && waiting.length) work();
}

async function work() {
  running += 1;
  for (let job = waiting.shift(); job; job = waiting.shift()) {
    await sendOne(job);
    showProgress();
  }
  running -= 1;
  finish();
}

async function sendOne({ file, className, group }) {
  const name = file.name ?? "frame";
  const ending = name.split(".").pop().toLowerCase();
  const type = file.type || `image/${TYPES[ending] ?? ending}`;
  const query = new URLSearchParams({ ...(className && { class: className }), ...(group && { group }) });
  try {
    const answer = await request(`api/images?${query}`, {
      method: "POST",
      body: file,
      headers: { "Content-Type": type },
    });
    if (answer.added) batch.added += 1;
    else batch.already.push(`${name}: ${answer.reason ?? `is there already, in ${answer.label}`}`);
    store.uploadedVersion = Math.max(store.uploadedVersion, answer.version);
    adopt(answer);
  } catch (error) {
    batch.refused.push(`${name}: ${error.message}`);
  }
  batch.done += 1;
  store.uploads -= 1;
}

function showProgress() {
  const line = byId("add-progress");
  if (line && batch) line.textContent = `${count(batch.done)} of ${plural(batch.total, "image")} sent.`;
}

/** At its end say what came of a batch: nothing is left out silently. */
function finish() {
  if (!batch || running || gathering || recording) return;
  const { archives, total, added, already, refused, classes } = batch;
  const parts = [...archives];
  if (total) parts.push(`${plural(added, "image")} added${classes.size ? ` to ${[...classes].join(", ")}` : ""}.`);
  if (already.length)
    parts.push(`${plural(already.length, "image")} ${already.length === 1 ? "was" : "were"} there already.`);
  if (refused.length === 1) parts.push(`Not added: ${refused[0]}`);
  else if (refused.length) parts.push(`${plural(refused.length, "file")} could not be added.`);
  tell(parts.join(" "), { isProblem: refused.length > 0, lines: [...refused, ...already] });
  batch = null;
  refreshSoon();
}

/** Files from anywhere: archives are imported, images go to the class that they were dropped on, is shown or is chosen. */
export const addFiles = (files, className = "") => together(() => sort(files, className));

async function sort(files, className) {
  const archives = files.filter((file) => /\.(zip|tm)$/i.test(file.name ?? ""));
  const images = files.filter((file) => file.type.startsWith("image/") || IMAGE.test(file.name ?? ""));
  const others = files
    .filter((file) => !archives.includes(file) && !images.includes(file))
    .map((file) => `${file.name}: is no image`);
  if (others.length) current().refused.push(...others);
  for (const archive of archives) await importArchive(archive, className);
  if (!images.length) return;
  const known = className || target || view.label;
  const name = known || isSeveral() ? known : await chooseClass(images.length === 1 ? "is the image of" : `are the ${count(images.length)} images of`);
  if (!name && !isSeveral()) return;
  send(images, name);
  announce(`Adding ${plural(images.length, "image")}${name ? ` to ${name}` : ""}.`);
}

async function importArchive(archive, className) {
  tell(`Reading ${archive.name} ...`);
  const query = className ? `?${new URLSearchParams({ class: className })}` : "";
  const options = { method: "POST", body: archive, headers: { "Content-Type": "application/zip" } };
  store.uploads += 1;
  const answer = await request(`api/import${query}`, options)
    .catch((error) => {
      current().refused.push(`${archive.name}: ${error.message}`);
      return null;
    })
    .finally(() => {
      store.uploads -= 1;
    });
  if (!answer) return;
  store.uploadedVersion = Math.max(store.uploadedVersion, answer.version);
  adopt(answer);
  refreshSoon();
  const { added, already, classes, refused } = answer;
  if (!added && !already && !className) {
    // The samples of one class lie in no folder, which would name it.
    const name = await chooseClass(`are the images of ${archive.name} of`);
    if (name) {
      await importArchive(archive, name);
      return;
    }
  }
  const found = `${plural(added, "image")} from ${archive.name}${classes.length ? `: ${classes.join(", ")}` : ""}.`;
  current().archives.push(already ? `${found} ${plural(already, "image")} there already.` : found);
  batch.refused.push(...refused.map(({ name, reason }) => `${archive.name}, ${name}: ${reason}`));
}

/** What was dropped: files, and folders, each of which is a class. */
export async function addDropped(event, files) {
  const className = event.target.closest?.("[data-class]")?.dataset.class ?? "";
  const entries = [...(event.dataTransfer?.items ?? [])].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const folders = entries.filter((entry) => entry.isDirectory);
  if (!folders.length) return addFiles(files, className);
  return together(async () => {
    const found = new Map();
    for (const folder of folders)
      await walk(folder, found).catch((error) => current().refused.push(`${folder.name}: ${error.message}`));
    const classes = []; // all are made before images arrive, which change the version that a class is made for
    for (const [name, inside] of found) {
      if (await makeClass(name)) classes.push([name, inside]);
      else current().refused.push(...inside.map((file) => `${name}/${file.name}: its class could not be made`));
    }
    for (const [name, inside] of classes) send(inside, name);
    if (!found.size) tell("The folder holds no images.", { isProblem: true });
    const read = await Promise.all(entries.filter((entry) => entry.isFile).map((entry) => readable(entry)));
    const loose = read.filter(Boolean);
    if (loose.length) await sort(loose, className);
  });
}

/** The file of an entry; null, and refused by name, where it cannot be read. */
async function readable(entry, folder = "") {
  try {
    return await new Promise((resolve, reject) => entry.file(resolve, reject));
  } catch (error) {
    current().refused.push(`${folder}${entry.name}: ${error.message}`);
    return null;
  }
}

async function walk(folder, found) {
  const reader = folder.createReader();
  for (;;) {
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) return;
    for (const entry of entries) {
      if (entry.isDirectory) await walk(entry, found);
      else if (IMAGE.test(entry.name)) {
        const file = await readable(entry, `${folder.name}/`);
        if (file) found.set(folder.name, [...(found.get(folder.name) ?? []), file]);
      } else if (!OF_THE_SYSTEM.test(entry.name)) current().refused.push(`${folder.name}/${entry.name}: is no image`);
    }
  }
}

/** Open the place where images are added to a class. */
export async function openAdd(className, { camera: withCamera = false } = {}) {
  stopCamera();
  target = className;
  const box = byId("add");
  const field = make("input", { type: "file", multiple: true, accept: "image/*,.heic,.jxl,.zip,.tm" });
  field.addEventListener("change", () => {
    addFiles([...field.files], target);
    field.value = "";
  });
  const cameraButton = button("Use the camera", () => (camera.isOn ? stopCamera() : startCamera()), {
    id: "add-camera",
  });
  box.replaceChildren(
    make(
      "div",
      { className: "row" },
      make("h2", { id: "h-add", tabIndex: -1 }, "Add images", className ? " to " : "", make("bdi", {}, className)),
      button("Close", closeAdd, { className: "plain" }),
    ),
    make(
      "div",
      { className: "row" },
      make("label", { className: "button primary" }, "Choose images", field),
      cameraButton,
      make("span", { className: "soft small hint" }, "or drop them on this page, or paste one"),
    ),
    make("div", { id: "add-stage", className: "stage" }),
    make("p", { id: "add-progress", className: "soft small" }),
  );
  box.hidden = false;
  if (withCamera) await startCamera();
  byId("h-add").focus();
}

function closeAdd() {
  stopCamera();
  target = "";
  byId("add").hidden = true;
  byId("grid").focus();
}

async function startCamera() {
  const reasons = whyNoCamera();
  if (reasons.length) {
    byId("add-stage").replaceChildren(
      make("div", { className: "note" }, ...reasons.map((line) => make("p", {}, line))),
    );
    announce(reasons.join(" "));
    return;
  }
  try {
    await camera.start();
  } catch (error) {
    byId("add-stage").replaceChildren(make("div", { className: "note" }, make("p", {}, error.message)));
    announce(error.message);
    return;
  }
  byId("add-camera").textContent = "Stop the camera";
  const hold = button("Hold to record", null, { className: "record", id: "record" });
  for (const [name, act] of Object.entries({
    pointerdown: startRecording,
    pointerup: stopRecording,
    pointercancel: stopRecording,
    lostpointercapture: stopRecording,
    blur: stopRecording,
  })) {
    hold.addEventListener(name, act);
  }
  hold.addEventListener("contextmenu", (event) => event.preventDefault()); // a long touch
  hold.addEventListener("keydown", (event) => {
    if (event.key !== " " && event.key !== "Enter") return;
    event.preventDefault();
    event.stopPropagation();
    if (!event.repeat) startRecording();
  });
  hold.addEventListener("keyup", (event) => (event.key === " " || event.key === "Enter") && stopRecording());
  const timed = button(`Record ${RECORD_SECONDS} seconds`, () => startRecording({ seconds: RECORD_SECONDS }));
  const others =
    (await camera.cameras()).length > 1 ? [button("Other camera", () => attempt(() => camera.next()))] : [];
  byId("add-stage").replaceChildren(
    make("span", { className: "frame" }, video),
    make(
      "div",
      {},
      make("div", { className: "row" }, hold, timed, ...others),
      make(
        "p",
        { className: "soft small" },
        "A press takes one image, holding takes eight a second. One recording counts as one scene: " +
          "its images are so alike that they are left out together when the accuracy is measured. Record five or more of each class, " +
          "with other places, angles and light.",
      ),
      make("p", { id: "recorded", className: "figure-line" }),
    ),
  );
  await video.play();
}

function stopCamera() {
  camera.stop();
  byId("add-stage")?.replaceChildren();
  if (byId("add-camera")) byId("add-camera").textContent = "Use the camera";
}

/** One recording is one group, whose images are frames until it stops. */
async function startRecording({ seconds = 0, pointerId } = {}) {
  if (recording || !camera.isOn) return;
  if (pointerId !== undefined) byId("record").setPointerCapture(pointerId);
  const random = crypto.getRandomValues(new Uint32Array(1))[0].toString(36);
  const own = {
    group: `burst-${Date.now().toString(36)}-${random}`,
    className: target,
    frames: 0,
    startedAt: Date.now(),
    isTimed: seconds > 0,
    mustStop: false,
  };
  recording = own;
  byId("record").classList.add("on");
  do {
    const file = waiting.length < BACKLOG ? await camera.frame(LONGEST) : null;
    if (file && camera.isOn) {
      own.frames += 1;
      send([file], own.className, own.group);
      byId("recorded").textContent = `${plural(own.frames, "image")} recorded`;
    }
    await new Promise((resolve) => setTimeout(resolve, FRAME_MS));
    if (seconds && Date.now() - own.startedAt > 1000 * seconds) own.mustStop = true;
  } while (!own.mustStop && camera.isOn);
  recording = null;
  byId("record")?.classList.remove("on");
  announce(`${plural(own.frames, "image")} recorded${own.className ? ` for ${own.className}` : ""}.`);
  finish();
}

function stopRecording() {
  if (recording && !recording.isTimed) recording.mustStop = true;
}
