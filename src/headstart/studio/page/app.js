// The page of `headstart studio`: its parts, put together.

import { takeToken } from "../shared/api.js";
import { button, byId, count, make, onFilesGiven, plural } from "../shared/dom.js";
import { addDropped, addFiles, openAdd } from "./add.js";
import { showClasses, showNothing, showStart, startClasses } from "./classes.js";
import { openDetail } from "./detail.js";
import { applyFilter, clearSelection, show, startGrid, view } from "./grid.js";
import { acceptTargets, label, removeTargets, showKeys, startKeys } from "./keys.js";
import { onJob, save, showModel, startModel, takeJobs } from "./model.js";
import { showResults } from "./results.js";
import { attempt, follow, onChange, refresh, store, undo } from "./store.js";
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
  const key = JSON.stringify([view.selected.size, classes.map(({ name }) => name)]);
  if (bar.dataset.key === key) return;
  bar.dataset.key = key;
  const labels = classes.slice(0, 9).map(({ name }, i) => {
    const made = button("", () => label(name), { "aria-label": `Label as ${name}` });
    made.append(make("kbd", {}, String(i + 1)), make("bdi", {}, name));
    return made;
  });
  if (classes.length > 9) {
    const select = make(
      "select",
      { "aria-label": "Label as another class" },
      make("option", { value: "" }, "other class"),
      ...classes.slice(9).map(({ name }) => make("option", { value: name }, name)),
    );
    select.addEventListener("change", () => select.value && label(select.value));
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
  if (store.uploads) parts.push(`sending ${plural(store.uploads, "image")}`);
  if (embedding.done < embedding.total)
    parts.push(`reading images: ${count(embedding.done)} of ${count(embedding.total)}`);
  if (full.state === "running") parts.push("choosing the model");
  byId("activity").textContent = parts.join(" · ");
}

function draw() {
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
    show({ label: view.label, predicted: "", show: byId("filter-show").value, text: byId("filter-text").value });
    draw();
  };
  byId("filter-text").addEventListener("input", update);
  byId("filter-show").addEventListener("change", update);
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
