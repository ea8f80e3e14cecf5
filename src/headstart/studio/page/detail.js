// One image, large: what it is labelled, what it is taken for, and its neighbours by the arrow keys.

import { request } from "../shared/api.js";
import { answerView } from "../shared/answer.js";
import { button, byId, make } from "../shared/dom.js";
import { clearSelection, moveTo, view } from "./grid.js";
import { accept, className, imageUrl, relabel, remove, store } from "./store.js";

let dialog = null;

/** Open the image at the cursor. */
export function openDetail() {
  if (!view.rows.length || dialog) return;
  dialog = make("dialog", { id: "detail", "aria-labelledby": "detail-name" });
  dialog.addEventListener("keydown", onKey);
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => {
    dialog.remove();
    dialog = null;
    byId("grid").focus();
  });
  document.body.append(dialog);
  dialog.showModal();
  draw();
}

async function draw() {
  const row = view.rows[view.cursor];
  if (!row) {
    dialog.close();
    return;
  }
  const text = make(
    "div",
    { className: "detail-text" },
    make("p", { className: "soft" }, `Label: ${className(row) || "none"}`),
  );
  const labels = make(
    "div",
    { className: "row" },
    ...store.state.classes.map(({ name }, i) => labelButton(row, name, i)),
  );
  dialog.replaceChildren(
    make(
      "div",
      { className: "row detail-bar" },
      make("h2", { id: "detail-name" }, make("bdi", {}, row.name)),
      make("span", { className: "soft small" }, `${view.cursor + 1} of ${view.rows.length}`),
      button("Previous", () => move(-1), { disabled: view.cursor === 0 }),
      button("Next", () => move(1), { disabled: view.cursor === view.rows.length - 1 }),
      button("Close", () => dialog.close()),
    ),
    make(
      "div",
      { className: "detail-columns" },
      make("span", { className: "frame" }, make("img", { src: imageUrl(row.id, "images"), alt: row.name })),
      text,
    ),
    make("h3", {}, "Label"),
    labels,
    make(
      "div",
      { className: "row" },
      button("The label is right", () => act(() => accept([row.id])), { disabled: row.accepted }),
      button("Delete", () => act(() => remove([row.id]))),
    ),
  );
  const detail = await request(`api/images/${row.id}`).catch((error) => ({ error: error.message }));
  if (!dialog || view.rows[view.cursor]?.id !== row.id) return;
  if (detail.error) text.append(make("p", { className: "problem" }, detail.error));
  if (detail.issue)
    text.append(make("p", { className: "note" }, `Looks like ${detail.issue.suggested}. ${detail.issue.why ?? ""}`));
  if (detail.probabilities) {
    text.append(
      make("p", { className: "soft small" }, "What it is taken for by a model that has not seen it or its scene:"),
      answerView({ predictions: detail.probabilities, set: [], none_of_these: false }),
    );
  }
  if (detail.group) text.append(make("p", { className: "soft small" }, `Scene: ${detail.group}`));
}

function labelButton(row, name, i) {
  const made = button("", () => act(() => relabel([row.id], name)), {
    "aria-pressed": String(className(row) === name),
  });
  if (i < 9) made.append(make("kbd", {}, String(i + 1)));
  made.append(make("bdi", {}, name));
  return made;
}

async function act(action) {
  const id = view.rows[view.cursor].id;
  if ((await action()) && dialog && view.rows[view.cursor]?.id === id) move(1);
  else if (dialog) draw();
}

function move(step) {
  moveTo(view.cursor + step);
  draw();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { classes } = store.state,
    row = view.rows[view.cursor];
  if (event.key === "ArrowRight") move(1);
  else if (event.key === "ArrowLeft") move(-1);
  else if (/^[1-9]$/.test(event.key) && classes[event.key - 1])
    act(() => relabel([row.id], classes[event.key - 1].name));
  else if (event.key === "Delete") act(() => remove([row.id]));
  else return;
  event.preventDefault();
  clearSelection();
}
