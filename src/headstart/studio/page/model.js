// The model: compare with the last saved one, save, report, export; labels into folders, undo.

import { ask, request } from "../shared/api.js";
import { announce, button, byId, make, plural, rate } from "../shared/dom.js";
import { attempt, change, isSeveral, post, refreshSoon, store, tell, undo } from "./store.js";

const jobs = new Map();
let drawn = "",
  comparison = null,
  compared = "";

/** Connect the buttons of the panel, which stay as they are, so that none moves away under a pointer. */
export function startModel() {
  byId("model-save").addEventListener("click", () => save());
  byId("model-report").addEventListener("click", () => start("api/report"));
  byId("model-export").addEventListener("click", () => start("api/export", { to: byId("export-to").value }));
  byId("apply").addEventListener("click", apply);
  byId("model-undo").addEventListener("click", undo);
}

/** Draw the panel where it has changed. */
export function showModel(isVisible) {
  const { saved, changes, undo: what, shows, formats, notes, table, trash } = store.state;
  if (isVisible && shows !== "none") compare();
  const key = JSON.stringify([saved, changes, what, shows, formats, notes, trash, [...jobs.values()], comparison]);
  if (key === drawn) return;
  drawn = key;
  const isReady = shows !== "none";
  const never = isReady ? "Not saved yet." : "There is no model yet.";
  byId("saved").textContent = saved ? `Last saved ${new Date(saved.at).toLocaleString()} in ${saved.folder}.` : never;
  byId("comparison").replaceChildren(comparison ? comparisonView(comparison) : "");
  byId("model-save").disabled = byId("model-report").disabled = !isReady;
  byId("model-export").disabled = !isReady || !formats.length;
  if (byId("export-to").length !== formats.length) {
    byId("export-to").replaceChildren(...formats.map((name) => make("option", { value: name }, name)));
  }
  byId("jobs").replaceChildren(...[...jobs.values()].reverse().slice(0, 6).map(jobView));
  const differ =
    changes === 1
      ? "1 image has another label than its folder."
      : `${plural(changes, "image")} have other labels than their folders.`;
  byId("changes").textContent = changes
    ? `${differ} Labels are kept in a table; no file is moved until you say so.`
    : "Every image lies in the folder of its label.";
  if (isSeveral()) {
    byId("h-changes").textContent = "Labels";
    byId("changes").textContent =
      "Labels are kept in a table. Files stay where they are: an image with several labels has no one folder.";
  }
  byId("apply").hidden = isSeveral();
  byId("apply").disabled = !changes;
  byId("model-undo").disabled = !what;
  byId("undo-what").textContent = what ? `Undo takes back: ${what}` : "Nothing to undo.";
  byId("table").textContent = `Table of labels: ${table}. ${trash ? `${plural(trash, "image")} in the trash.` : ""}`;
  byId("notes").hidden = !notes.length;
  byId("note-list").replaceChildren(...notes.map((note) => make("li", {}, note)));
}

async function compare() {
  const key = JSON.stringify([store.version, store.state.shows, store.state.saved]);
  if (key === compared) return;
  compared = key;
  try {
    comparison = await request("api/compare");
  } catch (error) {
    comparison = error.body?.reason === "not_ready" ? null : { verdict: "not_comparable", why: error.message };
  }
  showModel(false);
}

const VERDICTS = {
  better: "Better than the saved model, beyond chance.",
  worse: "Worse than the saved model, beyond chance.",
  no_difference: "No difference to the saved model that could not be chance.",
  no_saved_model: "There is no saved model to compare with.",
  not_comparable: "It cannot be compared with the saved model.",
};

function comparisonView({ verdict, why, difference, interval, images, ...found }) {
  const metric = isSeveral() ? "mean_average_precision" : "accuracy";
  const [before, now] = [found[`saved_${metric}`], found[`new_${metric}`]];
  const box = make(
    "div",
    { className: verdict === "worse" ? "note" : "comparison" },
    make("p", {}, make("strong", {}, VERDICTS[verdict] ?? verdict)),
  );
  if (verdict === "no_saved_model") return "";
  if (difference != null) {
    box.append(
      make(
        "p",
        {},
        `${isSeveral() ? "mAP " : ""}${rate(before)} before, ${rate(now)} now, of the same ${plural(images, "image")}: ${points(difference)} points ` +
          `(95% interval ${points(interval[0])} to ${points(interval[1])}).`,
      ),
    );
  }
  if (why) box.append(make("p", { className: "soft small" }, why));
  return box;
}

const points = (share) => `${share < 0 ? "−" : "+"}${Math.abs(100 * share).toFixed(1)}`;

/** Save; where the new model is worse, ask first. */
export async function save(anyway = false) {
  tell("Saving: the full choice for these labels first, then the comparison with the saved model.");
  const answer = await change("api/save", { anyway });
  if (answer) onJob(answer.job);
}

async function start(path, body = {}) {
  const answer = await change(path, body);
  if (answer) onJob(answer.job);
}

async function apply() {
  const choice = await ask(
    "Move files to the folders of their labels?",
    [`${plural(store.state.changes, "file")} will be moved within ${store.state.folder}. Undo moves them back.`],
    ["Move", "Cancel"],
  );
  if (choice !== "Move") return;
  const answer = await change("api/apply");
  if (!answer) return;
  tell(
    `${plural(answer.moved, "file")} moved.${answer.kept.length ? ` ${plural(answer.kept.length, "file")} kept where they are.` : ""}`,
    { isProblem: answer.kept.length > 0, lines: answer.kept.map(({ name, reason }) => `${name}: ${reason}`) },
  );
}

/** What became of saving, a report or an export. */
export async function onJob(job) {
  const before = jobs.get(job.id);
  if (
    JSON.stringify(before) === JSON.stringify(job) ||
    (before && before.state !== "running" && job.state === "running")
  )
    return;
  jobs.set(job.id, job);
  showModel(false);
  if (job.state === "running") return;
  if (job.state === "failed") {
    tell(`${NAMES[job.what]} failed: ${job.error}`, { isProblem: true });
    return;
  }
  const { result } = job;
  if (job.what === "save") await afterSave(result);
  else tell(job.what === "report" ? 'The report is ready, in the part "Model".' : `Exported to ${result.folder}.`);
  refreshSoon();
}

async function afterSave({ saved, folder, comparison: found, why }) {
  if (saved) {
    tell(`Saved in ${folder}. Use it: headstart predict ${folder} IMAGES, or headstart serve ${folder}`);
    announce(`The model is saved in ${folder}.`);
    return;
  }
  const choice = await ask(
    "The new model is worse than the saved one. Save it anyway?",
    [found ? comparisonView(found) : "", why ?? ""].filter(Boolean),
    ["Keep the saved model", "Save anyway"],
  );
  if (choice === "Save anyway") await save(true);
}

const NAMES = { save: "Saving", report: "The report", export: "The export" };

function jobView({ what, state, result, error }) {
  const line = make("li", {}, `${NAMES[what]}: `);
  if (state === "running") line.append("running ...");
  else if (state === "failed") line.append(make("span", { className: "problem" }, error));
  else if (what === "report") {
    const link = make("a", { target: "_blank", rel: "noreferrer" }, "open it in a new tab");
    link.href = new URL(result.url.replace(/^\//, ""), document.baseURI).href;
    line.append(link);
  } else if (what === "save")
    line.append(result.saved ? `done, in ${result.folder}` : "not saved: the saved model is kept");
  else line.append(`done, in ${result.folder}${result.proof ? `. ${result.proof}` : ""}`);
  return line;
}

/** Jobs that were started before the page was opened. */
export function takeJobs(known) {
  for (const job of known ?? []) if (!jobs.has(job.id)) jobs.set(job.id, job);
}
