// One image, large: what it is labelled, what it is taken for, and its neighbours by the arrow keys.

import { request } from "../shared/api.js";
import { answerView } from "../shared/answer.js";
import { button, byId, make } from "../shared/dom.js";
import { clearSelection, hold, letGo, moveTo, view } from "./grid.js";
import { setNone, setState, spokenLabels, stateOf, toggle } from "./labels.js";
import { accept, className, imageUrl, isSeveral, relabel, remove, store } from "./store.js";

let dialog = null,
  shown = "", // the id of the image
  isUnknownNext = false; // X was pressed: the next number marks a label as not known

/** Open the image at the cursor. */
export function openDetail() {
  if (dialog) return;
  letGo();
  if (!view.rows.length) return;
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
  [shown] = hold([row.id]);
  const text = make(
    "div",
    { className: "detail-text" },
    make("p", { className: "soft" }, isSeveral() ? `Labels: ${spokenLabels(row)}` : `Label: ${className(row) || "none"}`),
  );
  const labels = make(
    "div",
    { className: "row" },
    ...store.state.classes.map(({ name }, i) => (isSeveral() ? stateButtons(row, name, i) : labelButton(row, name, i))),
    ...(isSeveral() ? [noneButton(row)] : []),
  );
  const focus = dialog.contains(document.activeElement) ? document.activeElement.dataset.focus : "";
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
    make("h3", {}, isSeveral() ? "Labels" : "Label"),
    labels,
    make(
      "div",
      { className: "row" },
      button(isSeveral() ? "The labels are right" : "The label is right", () => act(() => accept([row.id])), {
        disabled: row.accepted || row.labels === null, // null: not labelled yet, where images may have several
      }),
      button("Delete", () => act(() => remove([row.id]))),
    ),
  );
  if (focus) dialog.querySelector(`[data-focus="${CSS.escape(focus)}"]`)?.focus();
  const detail = await request(`api/images/${row.id}`).catch((error) => ({ error: error.message }));
  if (!dialog || view.rows[view.cursor]?.id !== row.id) return;
  if (detail.error) text.append(make("p", { className: "problem" }, detail.error));
  if (detail.issue)
    text.append(make("p", { className: "note" }, `Looks like ${detail.issue.suggested}. ${detail.issue.why ?? ""}`));
  for (const issue of detail.issues ?? []) text.append(issueView(row, issue));
  if (detail.probabilities && isSeveral()) {
    const isHeldOut = detail.probabilities.some(({ held_out: is }) => is);
    const labels = detail.probabilities.filter(({ holds }) => holds).map(({ label }) => label);
    text.append(
      make(
        "p",
        { className: "soft small" },
        isHeldOut
          ? "What it is taken for by a model that has not seen it or its scene:"
          : "What the model takes it for, which has not learned from it:",
      ),
      answerView({ predictions: detail.probabilities, labels, could_have: [], none_of_these: false }),
    );
  } else if (detail.probabilities) {
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

/** A label as it is known of the image, to give or to take, and to mark as not known. */
function stateButtons(row, name, i) {
  const state = stateOf(row, i);
  const give = button("", () => stay(() => toggle([row.id], name)), {
    "aria-pressed": String(state === "present"),
    "data-focus": `give-${i}`,
  });
  if (i < 9) give.append(make("kbd", {}, String(i + 1)));
  give.append(make("bdi", {}, name));
  const unknown = button("?", () => stay(() => setState([row.id], name, state === "unknown" ? "absent" : "unknown")), {
    "aria-pressed": String(state === "unknown"),
    "aria-label": `It is not known whether the image has ${name}`,
    title: "not known",
    "data-focus": `unknown-${i}`,
  });
  return make("span", { className: "state-buttons" }, give, unknown);
}

function noneButton(row) {
  const isNone = row.labels !== null && !row.labels.length && !row.unknown.length;
  const made = button("", () => stay(() => setNone([row.id])), {
    "aria-pressed": String(isNone),
    "data-focus": "none",
  });
  made.append(make("kbd", {}, "0"), "None of the labels");
  return made;
}

/** A label that looks missing or wrong, to change or to accept. */
function issueView(row, { label, state, why }) {
  const isMissing = state === "missing";
  return make(
    "div",
    { className: "note" },
    make("p", {}, `${why}.`),
    make(
      "div",
      { className: "row" },
      button(isMissing ? `Add ${label}` : `Remove ${label}`, () =>
        stay(() => setState([row.id], label, isMissing ? "present" : "absent")),
      ),
      button("It is right as it is", () => stay(() => accept([row.id], label))),
    ),
  );
}

/** Do something to the image that is shown, and go on showing it. */
async function stay(action) {
  await action();
  if (dialog) draw();
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
  const isUnknown = isUnknownNext;
  isUnknownNext = false;
  if (isSeveral() && row?.id !== shown) draw(); // it was deleted elsewhere: the key was not for the one in its place
  else if (isSeveral() && (event.key === "x" || event.key === "X")) isUnknownNext = true;
  else if (isSeveral() && /^[1-9]$/.test(event.key) && classes[event.key - 1]) {
    const { name } = classes[event.key - 1];
    stay(() => (isUnknown ? setState([row.id], name, "unknown") : toggle([row.id], name)));
  } else if (isSeveral() && event.key === "0") stay(() => setNone([row.id]));
  else if (event.key === "ArrowRight") move(1);
  else if (event.key === "ArrowLeft") move(-1);
  else if (/^[1-9]$/.test(event.key) && classes[event.key - 1])
    act(() => relabel([row.id], classes[event.key - 1].name));
  else if (event.key === "Delete") act(() => remove([row.id]));
  else return;
  event.preventDefault();
  clearSelection();
}
