// What the page knows of the project, and the one way to change it.

import { button, byId, announce, make, plural } from "../shared/dom.js";
import { request } from "../shared/api.js";

const AT_ONCE = 5000,
  DELAY = 150,
  REPEATS = 5; // of a change, while images of this page arrive
/**
 * state: of the server; rows: the images; version: of the labels that the page shows; uploads: images under way;
 * uploadedVersion: that of the last image that this page added.
 */
export const store = { state: null, rows: [], rowOf: new Map(), version: 0, uploads: 0, uploadedVersion: 0 };
const OF_NO_IMAGE = ["api/classes", "api/classes/rename"]; // what they change does not depend on the images shown
const listeners = [];
let changing = 0; // requests of this page that change labels
let queue = Promise.resolve(),
  refreshing = null,
  isStale = false,
  timer = 0;

/** Call a function after every change of what the page knows. */
export const onChange = (listener) => listeners.push(listener);

/** Tell all parts of the page that something has changed. */
export const emit = () => listeners.forEach((listener) => listener());

/** A line that is seen and heard; one of a problem stays until it is closed. */
export function tell(text, { isProblem = false, lines = [] } = {}) {
  const box = byId("message");
  const list = lines.length
    ? [make("details", {}, make("summary", {}, "Which?"), make("ul", {}, ...lines.map((line) => make("li", {}, line))))]
    : [];
  box.replaceChildren(
    make("span", {}, text),
    ...list,
    button(
      "Close",
      () => {
        box.hidden = true;
      },
      { className: "plain" },
    ),
  );
  box.className = isProblem ? "message problem" : "message";
  box.hidden = false;
  announce(text);
  clearTimeout(timer);
  if (!isProblem)
    timer = setTimeout(() => {
      box.hidden = true;
    }, 8000);
}

/** Do something that may fail; what failed is told. */
export async function attempt(action) {
  try {
    return await action();
  } catch (error) {
    tell(error.message, { isProblem: true });
    return null;
  }
}

/** Whether an image may have several labels. */
export const isSeveral = () => store.state?.multi_label === true;
const labelKey = (row) => (isSeveral() ? JSON.stringify([row?.labels, row?.unknown]) : className(row));
export const className = (row) => nameOf(row?.label);
export const nameOf = (index) => store.state.classes[index]?.name ?? "";
export const imageUrl = (id, kind = "thumbnails") => `${kind}/${id}?key=${encodeURIComponent(store.state.key)}`;

/** Read state and images anew. */
export async function refresh() {
  isStale = true;
  refreshing ??= (async () => {
    while (isStale) {
      isStale = false;
      const state = await request("api/state");
      const { rows, version } = await readImages();
      if (state.version !== version || version < store.version)
        isStale = true; // a change was answered meanwhile: some of it is older
      else Object.assign(store, { state, rows, version, rowOf: new Map(rows.map((row) => [row.id, row])) });
    }
  })().finally(() => {
    refreshing = null;
  });
  await refreshing;
  emit();
}

async function readImages() {
  const rows = [];
  for (;;) {
    const answer = await request(`api/images?offset=${rows.length}&limit=${AT_ONCE}`);
    const keys = answer.columns.map((name) => name.replace(/_(.)/, (_, letter) => letter.toUpperCase()));
    for (const values of answer.rows) rows.push(Object.fromEntries(keys.map((key, i) => [key, values[i]])));
    if (rows.length >= answer.total || !answer.rows.length) return { rows, version: answer.version };
  }
}

let soon = 0;
/** Read anew a moment from now, however often this is called. */
export function refreshSoon() {
  clearTimeout(soon);
  soon = setTimeout(() => attempt(refresh), DELAY);
}

/** Post JSON. */
export const post = (path, body) =>
  request(path, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "Content-Type": "application/json" },
  });

/**
 * Change labels: requests go one after another, each with the version that the page shows; a body that depends on what
 * those before have changed is a function. Resolves to the answer, null
 * when it failed, which is told. After a 409 the page shows what others did and repeats nothing, unless it has added
 * images itself meanwhile, and the images in question are as they were.
 */
export function change(path, body = {}) {
  changing += 1;
  const result = queue
    .then(() => attempt(() => send(path, typeof body === "function" ? body() : body))) // so that it never rejects
    .finally(() => {
      changing -= 1;
    });
  queue = result;
  return result;
}

async function send(path, body, repeats = REPEATS) {
  const { version } = store;
  try {
    const answer = await post(path, { ...body, version });
    adopt(answer);
    refreshSoon();
    return answer;
  } catch (error) {
    if (error.status !== 409 || error.body?.reason !== "stale") {
      tell(error.message, { isProblem: true });
      return null;
    }
    const ids = body.ids ?? [],
      before = ids.map((id) => labelKey(store.rowOf.get(id)));
    await attempt(refresh);
    const isSame = ids.length
      ? ids.every((id, i) => store.rowOf.has(id) && labelKey(store.rowOf.get(id)) === before[i])
      : OF_NO_IMAGE.includes(path);
    const hasUploaded = store.uploads > 0 || store.uploadedVersion > version;
    if (isSame && hasUploaded && repeats > 0) return send(path, body, repeats - 1);
    tell(
      "Somebody else changed the labels meanwhile, perhaps you in another tab. You now see the newest; your change was not " +
        "made: make it again if it is still right.",
      { isProblem: true },
    );
    return null;
  }
}

/** Take over the version and figures of an answer. */
export function adopt({ version, evaluation }) {
  if (version !== undefined) store.version = Math.max(store.version, version);
  if (evaluation !== undefined) store.state.evaluation = evaluation;
  emit();
}

/** Give images a class. */
export async function relabel(ids, label) {
  const index = store.state.classes.findIndex(({ name }) => name === label);
  const answer = await change("api/relabel", { ids, label });
  if (!answer) return false;
  for (const id of ids) Object.assign(store.rowOf.get(id) ?? {}, { label: index, suspicion: 0 });
  tell(`${ids.length === 1 ? "1 image is" : `${ids.length} images are`} now ${label}.`);
  emit();
  return true;
}

/** Whether something is known of the labels of an image. */
const isLabelled = (row) => (isSeveral() ? row?.labels !== null : row?.label >= 0);

/** Say that the labels of images are right, or one of several. Resolves to whether there was any. */
export async function accept(ids, label = null) {
  const answer = await change("api/accept", label === null ? { ids } : { ids, label });
  if (!answer) return false;
  if (label !== null) {
    tell(`Accepted: what is known of ${label} is right.`);
    emit();
    return true;
  }
  const labelled = ids.filter((id) => isLabelled(store.rowOf.get(id)));
  for (const id of labelled) Object.assign(store.rowOf.get(id) ?? {}, { suspicion: 0, accepted: true, issues: [] });
  tell(acceptedText(labelled.length, ids.length - labelled.length));
  emit();
  return labelled.length > 0;
}

function acceptedText(labelled, without) {
  const left = without ? `${plural(without, "image")} ${without === 1 ? "is" : "are"} not labelled yet.` : "";
  const first = isSeveral() ? "Give labels first; the key 0 says that none holds." : "Give a class first.";
  if (!labelled) return `Nothing accepted: ${left} ${first}`;
  const label = isSeveral() ? "labels are" : "label is";
  const text = labelled === 1 ? `Accepted: the ${label} right.` : `Accepted: the labels of ${labelled} images are right.`;
  return left ? `${text} ${left}` : text;
}

/** Move images to the trash of the project. */
export async function remove(ids) {
  const answer = await change("api/delete", { ids });
  if (!answer) return false;
  const gone = new Set(ids);
  store.rows = store.rows.filter((row) => !gone.has(row.id));
  tell(`${ids.length === 1 ? "1 image" : `${ids.length} images`} moved to the trash. Undo brings back.`);
  emit();
  return true;
}

/** Take back the last change. */
export async function undo() {
  // Whether there is something to undo only the server knows: this page may not have heard yet of its own last change.
  const answer = await change("api/undo");
  if (answer) tell(`Undone: ${answer.undone}`);
}

/** Follow what happens on the server; `onJob` is told of saving, reports and exports. */
export function follow(onJob) {
  const source = new EventSource(`api/events?key=${encodeURIComponent(store.state.key)}`);
  const listen = (name, act) => source.addEventListener(name, (event) => act(JSON.parse(event.data)));
  let hasFailed = false;
  source.addEventListener("open", () => {
    if (hasFailed) byId("message").hidden = true;
    hasFailed = false;
    refreshSoon(); // also the first time: something may have happened since the state was read
  });
  source.addEventListener("error", () => {
    if (!hasFailed)
      tell("The studio does not answer. Is it still running? What you did is saved.", { isProblem: true });
    hasFailed = true;
    if (source.readyState === EventSource.CLOSED) setTimeout(() => attempt(refresh).then((_) => follow(onJob)), 3000);
  });
  listen("version", ({ version, what }) => {
    if (version > store.version && !changing && !store.uploads && what) tell(`Changed elsewhere: ${what}`);
    refreshSoon();
  });
  listen("live", ({ version, evaluation }) => {
    if (version >= store.version) {
      store.state.evaluation = evaluation;
      emit();
    }
    refreshSoon();
  });
  listen("full", (full) => {
    Object.assign(store.state.full, full);
    emit();
    refreshSoon();
  });
  listen("embedding", (embedding) => {
    store.state.embedding = embedding;
    emit();
    if (embedding.done >= embedding.total) refreshSoon();
  });
  listen("job", onJob);
}
