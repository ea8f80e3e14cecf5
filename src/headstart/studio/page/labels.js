// Several labels an image: what is known of each, how it is changed, and how it is shown in few words.

import { make, plural } from "../shared/dom.js";
import { change, emit, isSeveral, store, tell } from "./store.js";

const WORDS = { present: "present", absent: "absent", unknown: "not known" };

/** What is known of a label of an image, by the place of the label: "present", "absent" or "unknown". */
export function stateOf(row, index) {
  if (row.labels === null || row.unknown.includes(index)) return "unknown";
  return row.labels.includes(index) ? "present" : "absent";
}

const placeOf = (name) => store.state.classes.findIndex((entry) => entry.name === name);
const names = (indices) => indices.map((index) => store.state.classes[index]?.name ?? "");

/** The state of a label that several images share, "mixed" where they differ. */
export function commonState(ids, name) {
  const index = placeOf(name),
    states = new Set(ids.map((id) => stateOf(store.rowOf.get(id), index)));
  return states.size === 1 ? [...states][0] : "mixed";
}

/** Change labels of images: states by name, and that of all others. A function is asked when its turn has come. */
async function set(ids, make) {
  let body;
  const answer = await change("api/labels", () => {
    body = make();
    return { ids, ...body };
  });
  if (!answer) return false;
  for (const id of ids) adapt(store.rowOf.get(id), body);
  tell(`${sentence(body)}: ${plural(ids.length, "image")}. Undo takes it back.`);
  emit();
  return true;
}

function sentence({ labels = {}, others = "keep" }) {
  const parts = Object.entries(labels).map(([name, state]) => `${name} ${WORDS[state]}`);
  if (!parts.length) return others === "absent" ? "None of the labels" : "Nothing known";
  if (others !== "keep") parts.push(`others ${WORDS[others]}`);
  return parts.join(", ");
}

/** Show at once what the server will say: with the first label the others are absent. */
function adapt(row, { labels = {}, others = "keep" }) {
  if (!row) return;
  const isFirst = row.labels === null && Object.values(labels).includes("present");
  const rest = others === "keep" && isFirst ? "absent" : others;
  const states = store.state.classes.map(
    ({ name }, i) => (Object.hasOwn(labels, name) ? labels[name] : rest === "keep" ? stateOf(row, i) : rest),
  );
  const of = (wanted) => states.flatMap((state, i) => (state === wanted ? [i] : []));
  const isUnlabelled = states.length > 0 && states.every((state) => state === "unknown");
  Object.assign(row, {
    labels: isUnlabelled ? null : of("present"),
    unknown: isUnlabelled ? [] : of("unknown"),
    issues: row.issues.filter(([i]) => others === "keep" && !Object.hasOwn(labels, store.state.classes[i]?.name)),
  });
  row.suspicion = row.issues.length ? row.suspicion : row.suspicion && 0;
}

/** Give images a label where any lacks it, else take it from all. */
export function toggle(ids, name) {
  return set(ids, () => ({ labels: { [name]: commonState(ids, name) === "present" ? "absent" : "present" } }));
}

/** Say of a label of images what it is. */
export const setState = (ids, name, state) => set(ids, () => ({ labels: { [name]: state } }));

/** Say that images have none of the labels. */
export const setNone = (ids) => set(ids, () => ({ others: "absent" }));

/** Do what is suggested of images: cells that look wrong, and of images that nobody has labelled what is predicted. */
export async function takeLabelSuggestions(ids) {
  const wanted = new Map();
  for (const id of ids) {
    const body = suggestionFor(store.rowOf.get(id));
    if (!body) continue;
    const key = JSON.stringify(body);
    wanted.set(key, { body, ids: [...(wanted.get(key)?.ids ?? []), id] });
  }
  for (const { body, ids: some } of wanted.values()) await set(some, () => body);
  return wanted.size > 0;
}

function suggestionFor(row) {
  if (!row?.predicted) return null;
  if (row.labels === null) {
    const said = new Set(row.predicted);
    const states = placesPredicted(row).map((i) => [...names([i]), said.has(i) ? "present" : "absent"]);
    return { labels: Object.fromEntries(states), others: "unknown" };
  }
  if (!row.issues.length) return null;
  const cells = row.issues.map(([i, state]) => [names([i])[0], state === "missing" ? "present" : "absent"]);
  return { labels: Object.fromEntries(cells) };
}

/** The labels of an image as chips, which a click takes away or, of one not known, gives; "none" where there are none. */
export function chipsOf(row) {
  if (row.labels === null) return [make("span", { className: "soft" }, "not labelled")];
  const chip = (i, className) => {
    const [name] = names([i]);
    const made = make("span", { className }, make("bdi", {}, name), className.includes("unknown") ? " ?" : "");
    made.dataset.label = name;
    return made;
  };
  const chips = [...row.labels.map((i) => chip(i, "chip")), ...row.unknown.map((i) => chip(i, "chip unknown"))];
  return chips.length ? chips : [make("span", { className: "soft" }, "none")];
}

/** What a screen reader hears of the labels of an image. */
export function spokenLabels(row) {
  if (row.labels === null) return "not labelled";
  const unknown = row.unknown.length ? `; not known: ${names(row.unknown).join(", ")}` : "";
  return `${names(row.labels).join(", ") || "none of the labels"}${unknown}`;
}

/** What looks wrong, or is predicted of an image that nobody has labelled, in a few words; "" for nothing. */
export function labelHint(row) {
  const marks = row.issues.map(([i, state]) => `${state === "missing" ? "+" : "−"} ${names([i])[0]}`);
  if (marks.length) return `${marks.join(", ")}?`;
  if (row.labels !== null || row.predicted === null) return "";
  return `${names(row.predicted).join(", ") || "none"}?`;
}

/** The places of the labels that are predicted of an image, to be present or to be absent. */
function placesPredicted(row) {
  return store.state.classes.flatMap(({ learned }, i) => (learned && !row.unpredicted.includes(i) ? [i] : []));
}

/** Whether the prediction differs from what is known of an image. */
export function isMistaken(row) {
  if (row.labels === null || row.predicted === null) return false;
  const said = new Set(row.predicted);
  return placesPredicted(row).some((i) => !row.unknown.includes(i) && said.has(i) !== row.labels.includes(i));
}

/** The words for classes, or for labels where an image may have several. */
export const noun = () => (isSeveral() ? "label" : "class");
