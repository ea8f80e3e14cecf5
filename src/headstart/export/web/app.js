import { answer, answerFile, explain, load } from "./model.js";
import { fromBitmap } from "./preprocess.js";

const status = document.getElementById("status");
const results = document.getElementById("results");
const video = document.getElementById("video");
const cameraButton = document.getElementById("camera");
const names = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 1 });
let model = null, stream = null;
let answered = 0, failed = 0;

function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  return made;
}

function show(card, found) {
  card.querySelector(".answer")?.remove();
  const box = element("div", "", "answer");
  if (model.about.label_thresholds) showLabels(box, found);
  else showClass(box, found);
  card.append(box);
}

function showClass(box, found) {
  const { about } = model, { best, order, set, rejected } = explain(model, found);
  box.append(element("strong", rejected ? "none of these" : about.classes[best]));
  if (rejected) box.append(element("p", `The image is unlike those that the model learned from; nearest: ${about.classes[best]}.`));
  const said = set === null ? "not measured" : set.map((i) => about.classes[i]).join(", ");
  box.append(bars(order.slice(0, 5), found), element("p", `Prediction set: ${said}`, "set"));
}

function showLabels(box, found) {
  const { about } = model, { order, holds, further, rejected } = explain(model, found);
  const chips = element("p", "", "chips");
  for (const i of holds) chips.append(element("strong", about.classes[i]));
  box.append(holds.length ? chips : element("strong", "no label"));
  if (rejected) box.append(element("p", "The image is unlike those that the model learned from."));
  box.append(bars(order, found, about.label_thresholds.thresholds, holds));
  if (further.length) box.append(element("p", `It could also have: ${further.map((i) => about.classes[i]).join(", ")}`, "set"));
}

/** Classes with their probabilities; labels with the probability from which on each holds. */
function bars(order, found, thresholds = null, holds = []) {
  const list = element("ol");
  for (const i of order) {
    const row = element("li", "", holds.includes(i) ? "holds" : "");
    const bar = element("meter");
    bar.max = 1;
    bar.value = found.probabilities[i];
    bar.title = model.about.classes[i];
    row.append(element("span", model.about.classes[i]), bar, element("span", names.format(found.probabilities[i])));
    if (thresholds) row.append(element("small", `${holds.includes(i) ? "holds" : "does not hold; it would"} from ${names.format(thresholds[i])} on`));
    list.append(row);
  }
  return list;
}

async function addFiles(files) {
  for (const file of files) {
    const card = element("li"), picture = element("img");
    const url = URL.createObjectURL(file);
    picture.src = url;
    picture.alt = "";
    picture.onload = () => URL.revokeObjectURL(url);
    card.append(picture, element("p", file.name, "name"));
    results.prepend(card);
    try {
      show(card, await answerFile(model, file));
      answered += 1;
    } catch (error) {
      failed += 1;
      picture.remove();
      card.append(element("p", `This browser cannot read it: ${error.message}`, "answer"));
    }
  }
  status.textContent = `${answered === 1 ? "1 image" : `${answered} images`} answered on this device.` +
    (failed ? ` ${failed === 1 ? "1 file" : `${failed} files`} could not be read.` : "");
}

async function toggleCamera() {
  if (stream) {
    stream.getTracks().forEach((track) => track.stop());
    stream = null;
    video.parentElement.hidden = true;
    cameraButton.textContent = "Use the camera";
    return;
  }
  if (!navigator.mediaDevices) {
    status.textContent = "Browsers allow the camera on https addresses and on this machine (localhost) alone.";
    return;
  }
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    status.textContent = `The camera cannot be used: ${error.message}`;
    return;
  }
  video.srcObject = stream;
  await video.play();
  video.parentElement.hidden = false;
  cameraButton.textContent = "Stop the camera";
  while (stream) {
    if (video.videoWidth) show(video.parentElement, await answer(model, fromBitmap(video, video.videoWidth, video.videoHeight)));
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

document.getElementById("file").addEventListener("change", ({ target }) => {
  addFiles([...target.files]);
  target.value = "";  // so that the same file can be chosen again
});
cameraButton.addEventListener("click", toggleCamera);
for (const name of ["dragenter", "dragover", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", name !== "drop");
    if (name === "drop" && model) addFiles(event.dataTransfer.files);
  });
}
document.addEventListener("dragleave", () => document.body.classList.remove("over"));

try {
  model = await load();
  document.getElementById("classes").textContent = model.about.classes.join(", ");
  if (model.about.label_thresholds) {
    document.title = document.querySelector("h1").textContent = "Which labels does it have?";
    document.getElementById("what").textContent = "This model says which of these labels an image has, any number or none:";
  }
  for (const control of document.querySelectorAll("button, input")) control.disabled = false;
  status.textContent = "Ready. Images stay on this device.";
} catch (error) {
  status.textContent = location.protocol === "file:"
    ? "A browser loads no program from a file: put this folder on a web server, such as python -m http.server."
    : `The model cannot be loaded: ${error.message}`;
}
if ("serviceWorker" in navigator) navigator.serviceWorker.register("./sw.js");
