// The keys of the page.

import { ask } from "../shared/api.js";
import { byId, make } from "../shared/dom.js";
import { openDetail } from "./detail.js";
import { advance, clearSelection, hold, moveByKey, selectAll, targetsInSight, view } from "./grid.js";
import { setNone, setState, takeLabelSuggestions, toggle } from "./labels.js";
import { accept, isSeveral, nameOf, relabel, remove, store, tell, undo } from "./store.js";

const ONE = [
  ["1 to 9", "give the selected images the class of that number"],
  ["S", "take the class that is suggested: of a label issue, or of an image that has no class yet"],
  ["Enter", "accept: the label is right"],
];
const SEVERAL = [
  ["1 to 9", "give the selected images the label of that number, or take it away where all have it"],
  ["0", "none of the labels"],
  ["X, then 1 to 9", "it is not known whether the image has the label of that number"],
  ["S", "do what is suggested: labels that look missing or wrong, and of images not labelled yet what is predicted"],
  ["Enter", "accept: the labels are right; on to the next"],
];
const KEYS = [
  ["U", "undo"],
  ["Delete", "move to the trash of the project"],
  ["Arrow keys", "go to the next image; with Shift select as far as there"],
  ["Shift and click", "select a range"],
  ["Ctrl and click", "add to the selection"],
  ["Ctrl A", "select all that are shown"],
  ["Escape", "select nothing"],
  ["Space", "see the image large"],
  ["/", "search"],
  ["?", "show these keys"],
];

/** Show the keys. */
export function showKeys() {
  const rows = [...(isSeveral() ? SEVERAL : ONE), ...KEYS].map(([key, text]) =>
    make("tr", {}, make("th", { scope: "row" }, make("kbd", {}, key)), make("td", {}, text)),
  );
  return ask("Keys", [make("table", { className: "keys" }, make("tbody", {}, ...rows))], ["Close"]);
}

let isUnknownNext = false; // X was pressed: the next number marks a label as not known

/** Give the target images a class, then go on to the next; of several labels, give or take it and stay. */
export async function label(name) {
  const ids = hold(targetsInSight()),
    isUnknown = isUnknownNext;
  if (!ids.length) return;
  isUnknownNext = false;
  if (isSeveral()) {
    await (isUnknown ? setState(ids, name, "unknown") : toggle(ids, name));
    return;
  }
  if (await relabel(ids, name)) advance(ids);
}

/** Say that the target images have none of the labels. */
export async function labelNone() {
  const ids = hold(targetsInSight());
  if (ids.length) await setNone(ids);
}

/** Mark a label of the target images as not known. */
export async function labelUnknown(name) {
  const ids = hold(targetsInSight());
  if (ids.length) await setState(ids, name, "unknown");
}

/** The next number marks a label as not known. */
export function awaitUnknown() {
  isUnknownNext = true;
  tell("Not known: press the number of the label. Escape: none.");
}

/** Accept the labels of the target images, then go on to the next. */
export async function acceptTargets() {
  const ids = hold(targetsInSight());
  if (ids.length && (await accept(ids))) advance(ids);
}

export async function removeTargets() {
  const ids = targetsInSight();
  if (!ids.length) return;
  const place = view.cursor;
  if (await remove(ids)) {
    clearSelection();
    view.cursor = Math.min(place, view.rows.length - 1);
  }
}

/** The suggested class of each target image that has one. */
async function takeSuggestions() {
  const ids = hold(targetsInSight()),
    wanted = new Map();
  if (isSeveral()) {
    if (await takeLabelSuggestions(ids)) advance(ids);
    return;
  }
  for (const id of ids) {
    const row = store.rowOf.get(id);
    if (row.predicted === null || row.predicted === row.label) continue;
    const name = nameOf(row.predicted);
    wanted.set(name, [...(wanted.get(name) ?? []), id]);
  }
  for (const [name, some] of wanted) await relabel(some, name);
  if (wanted.size) advance(ids);
}

/** Connect the keys; those that a field, a button or a dialog uses are left to it. */
export function startKeys(isGridShown) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || !store.state || event.target.closest("input, select, textarea, dialog")) return;
    const isControl = event.target.closest("button, a, summary, [role=tab]");
    if ((event.ctrlKey || event.metaKey) && event.key === "a" && isGridShown() && !isControl) {
      event.preventDefault();
      selectAll();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (act(event, isControl, isGridShown())) event.preventDefault();
  });
}

function act(event, isControl, isGridShown) {
  const { classes } = store.state,
    { key } = event;
  if (isUnknownNext && key === "Escape") {
    isUnknownNext = false;
    byId("message").hidden = true;
    return true;
  }
  if (!/^[1-9]$/.test(key) && key !== "Shift") isUnknownNext = false;
  if (key === "?") showKeys();
  else if (key === "u" || key === "U") undo();
  else if (key === "/" && isGridShown) byId("filter-text").focus();
  else if (!isGridShown) return false;
  else if (/^[1-9]$/.test(key) && classes[key - 1]) label(classes[key - 1].name);
  else if (isSeveral() && key === "0") labelNone();
  else if (isSeveral() && (key === "x" || key === "X")) awaitUnknown();
  else if (key === "s" || key === "S") takeSuggestions();
  else if (key === "Delete" || key === "Backspace") removeTargets();
  else if (key === "Escape") clearSelection();
  else if (isControl || event.target.closest(".panel")) return false;
  else if (key === "Enter") acceptTargets();
  else if (key === " ") openDetail();
  else return moveByKey(event);
  return true;
}
