// The keys of the page.

import { ask } from "../shared/api.js";
import { byId, make } from "../shared/dom.js";
import { openDetail } from "./detail.js";
import { advance, clearSelection, moveByKey, selectAll, targets, view } from "./grid.js";
import { accept, nameOf, relabel, remove, store, undo } from "./store.js";

const KEYS = [
  ["1 to 9", "give the selected images the class of that number"],
  ["S", "take the class that is suggested"],
  ["Enter", "accept: the label is right"],
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
  const rows = KEYS.map(([key, text]) =>
    make("tr", {}, make("th", { scope: "row" }, make("kbd", {}, key)), make("td", {}, text)),
  );
  return ask("Keys", [make("table", { className: "keys" }, make("tbody", {}, ...rows))], ["Close"]);
}

/** Give the target images a class, then go on to the next. */
export async function label(name) {
  const ids = targets();
  if (ids.length && (await relabel(ids, name))) advance(ids);
}

/** Accept the labels of the target images, then go on to the next. */
export async function acceptTargets() {
  const ids = targets();
  if (ids.length && (await accept(ids))) advance(ids);
}

export async function removeTargets() {
  const ids = targets();
  if (!ids.length) return;
  const place = view.cursor;
  if (await remove(ids)) {
    clearSelection();
    view.cursor = Math.min(place, view.rows.length - 1);
  }
}

/** The suggested class of each target image that has one. */
async function takeSuggestions() {
  const ids = targets(),
    wanted = new Map();
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
  if (key === "?") showKeys();
  else if (key === "u" || key === "U") undo();
  else if (key === "/" && isGridShown) byId("filter-text").focus();
  else if (!isGridShown) return false;
  else if (/^[1-9]$/.test(key) && classes[key - 1]) label(classes[key - 1].name);
  else if (key === "s" || key === "S") takeSuggestions();
  else if (key === "Delete" || key === "Backspace") removeTargets();
  else if (key === "Escape") clearSelection();
  else if (isControl) return false;
  else if (key === "Enter") acceptTargets();
  else if (key === " ") openDetail();
  else if (event.target.closest(".panel")) return false;
  else return moveByKey(event);
  return true;
}
