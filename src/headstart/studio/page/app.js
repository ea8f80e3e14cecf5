// The page of `headstart studio`: its parts, put together.

import { takeToken } from "../shared/api.js";
import { button, byId, count, make, onFilesGiven, plural } from "../shared/dom.js";
import { addDropped, addFiles, openAdd } from "./add.js";
import { showClasses, showNothing, showStart, startClasses } from "./classes.js";
import { openDetail } from "./detail.js";
import { applyFilter, clearSelection, show, startGrid, view } from "./grid.js";
import { acceptTargets, label, labelNone, labelUnknown, removeTargets, showKeys, startKeys } from "./keys.js";
import { commonState } from "./labels.js";
import { onJob, save, showModel, startModel, takeJobs } from "./model.js";
import { showResults } from "./results.js";
import { attempt, follow, isSeveral, onChange, refresh, store, undo } from "./store.js";
import { showTry, stopCamera, tryFile } from "./try.js";

const TABS = ["images", "results", "try", "model"];
const wide = matchMedia("(min-width: 960px)");
let tab = wide.matches ? "results" : "images";

function showTab(wanted, { focus = false } = {}) {
  const name = wide.matches && wanted === "images" ? "results" : wanted;
  if (name !== "try") stopCamera();
  tab = name;
  document.body.dataset.tab = name;
  for (const other of TABS) {
    const control = byId(`tab-${other}`);
    control.setAttribute("aria-selected", String(other === name));
    control.tabIndex = other === name ? 0 : -1;
  }
  if (focus) byId(`tab-${name}`).focus();
  if (store.state) draw();
}

const isGridShown = () => wide.matches || tab === "images";

function startTabs() {
  const tabs = byId("tab-images").parentElement;
  tabs.addEventListener("click", (event) => event.target.dataset.tab && showTab(event.target.dataset.tab));
  tabs.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const names = wide.matches ? TABS.slice(1) : TABS;
    showTab(names[(names.indexOf(tab) + step + names.length) % names.length], { focus: true });
  });
  wide.addEventListener("change", () => showTab(tab));
}

/** The bar of what can be done with the selected images. */
function showSelection() {
  const bar = byId("selection"),
    { classes } = store.state;
  bar.hidden = !view.selected.size;
  if (bar.hidden) return;
  const states = isSeveral() ? classes.map(({ name }) => commonState([...view.selected], name)) : [];
  const key = JSON.stringify([view.selected.size, classes.map(({ name }) => name), states]);
  if (bar.dataset.key === key) return;
  bar.dataset.key = key;
  if (isSeveral()) {
    showLabelBar(bar, classes, states);
    return;
  }
  const labels = classes.slice(0, 9).map(({ name }, i) => {
    const made = button("", () => label(name), { title: `Label as ${name}` });
    made.append(make("kbd", {}, String(i + 1)), " ", make("bdi", {}, name));
    return made;
  });
  if (classes.length > 9) {
    const select = make(
      "select",
      { "aria-label": "Label as another class" },
      make("option", { value: "" }, "other class"),
      ...classes.slice(9).map(({ name }) => make("option", { value: name }, name)),
    );
    onChoice(select, label);
    labels.push(select);
  }
  bar.replaceChildren(
    make("span", {}, `${count(view.selected.size)} selected. Label:`),
    ...labels,
    button("Label is right", acceptTargets),
    button("Enlarge", openDetail),
    button("Delete", removeTargets),
    button("Select none", clearSelection, { className: "plain" }),
  );
}

/** Call `act` with the label that is chosen, also where it is the one that was chosen before. */
function onChoice(select, act) {
  select.addEventListener("change", () => {
    const { value } = select;
    select.value = "";
    if (value) act(value);
  });
}

/** The same of several labels: each is given or taken; which of them all have is pressed. */
function showLabelBar(bar, classes, states) {
  const focus = document.activeElement?.dataset?.focus;
  const pressed = { present: "true", mixed: "mixed" };
  const labels = classes.map(({ name }, i) => {
    const made = button("", () => label(name), {
      "aria-pressed": pressed[states[i]] ?? "false",
      "data-focus": `bar-${i}`,
      title: name,
      className: `state-${states[i]}`,
    });
    if (i < 9) made.append(make("kbd", {}, String(i + 1)));
    made.append(make("bdi", {}, name), states[i] === "unknown" ? " ?" : "");
    return made;
  });
  const select = make(
    "select",
    { "aria-label": "Not known whether the images have a label", "data-focus": "bar-unknown" },
    make("option", { value: "" }, "Not known ..."),
    ...classes.map(({ name }) => make("option", { value: name }, name)),
  );
  onChoice(select, labelUnknown);
  const none = button("", labelNone, { "data-focus": "bar-none" });
  none.append(make("kbd", {}, "0"), "None");
  bar.replaceChildren(
    make("span", {}, `${count(view.selected.size)} selected. Labels:`),
    ...labels,
    none,
    select,
    button("Labels are right", acceptTargets),
    button("Enlarge", openDetail),
    button("Delete", removeTargets),
    button("Select none", clearSelection, { className: "plain" }),
  );
  if (focus) bar.querySelector(`[data-focus="${CSS.escape(focus)}"]`)?.focus();
}

const LABEL_SHOWS = [
  ["all", "All images"],
  ["unlabelled", "Not labelled yet"],
  ["issues", "Labels that look wrong"],
  ["uncertain", "Most uncertain first"],
  ["mistaken", "Predicted otherwise"],
  ["none", "None of the labels"],
  ["unknown", "A label not known"],
  ["failed", "Could not be read"],
];

/** What can be shown of images with several labels, once that is known. */
function nameFilters() {
  const select = byId("filter-show");
  if (!isSeveral() || select.dataset.several) return;
  select.dataset.several = "yes";
  select.replaceChildren(...LABEL_SHOWS.map(([value, text]) => make("option", { value }, text)));
  document.body.dataset.over = "Drop images on a label, or anywhere to add them without one";
}

function showTop() {
  const { project, folder, undo: what, embedding, full, shows } = store.state;
  byId("project").textContent = project;
  byId("folder").textContent = folder;
  document.body.classList.toggle("is-empty", store.state.images === 0);
  document.title = `${project}: Headstart studio`;
  byId("undo").disabled = !what;
  byId("undo").title = what ? `Take back: ${what}` : "Nothing to undo";
  byId("save").disabled = shows === "none";
  const parts = [];
  if (store.uploads) parts.push(`sending ${plural(store.uploads, "file")}`);
  if (embedding.done < embedding.total)
    parts.push(`reading images: ${count(embedding.done)} of ${count(embedding.total)}`);
  if (full.state === "running") parts.push("choosing the model");
  byId("activity").textContent = parts.join(" · ");
}

function draw() {
  nameFilters();
  showTop();
  applyFilter();
  showClasses();
  showStart();
  showNothing();
  showSelection();
  showResults(tab === "results");
  showTry();
  showModel(tab === "model");
}

function startFilters() {
  const update = () => {
    const [kind, text, state] = ["filter-show", "filter-text", "filter-state"].map((id) => byId(id).value);
    show({ label: view.label, state, predicted: "", show: kind, text });
    draw();
  };
  byId("filter-text").addEventListener("input", update);
  byId("filter-show").addEventListener("change", update);
  byId("filter-state").addEventListener("change", update);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filter-clear").addEventListener("click", () => show({}));
}

async function main() {
  takeToken();
  startTabs();
  showTab(tab);
  startFilters();
  startGrid(() => {
    showClasses();
    showNothing();
    showSelection();
  }, openDetail);
  startClasses(openAdd);
  startKeys(isGridShown);
  startModel();
  byId("import").addEventListener("change", ({ target }) => {
    addFiles([...target.files]);
    target.value = "";
  });
  byId("undo").addEventListener("click", undo);
  byId("keys").addEventListener("click", showKeys);
  byId("save").addEventListener("click", () => {
    showTab("model");
    save();
  });
  onFilesGiven((files, event) => {
    if (event.target.closest?.("#try") || (!wide.matches && tab === "try")) tryFile(files[0]);
    else addDropped(event, files);
  });
  onChange(draw);
  while (!(await attempt(() => refresh().then(() => true)))) await new Promise((resolve) => setTimeout(resolve, 3000));
  takeJobs(store.state.jobs);
  follow(onJob);
}

addEventListener("beforeunload", (event) => store.uploads && event.preventDefault());
main();
